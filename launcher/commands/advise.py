"""``frontrunner advise``: nodes, layout, days and node-hours for a number of tokens, and the run file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.types import LARGEST
from frontrunner.launcher.commands.plan import USUAL_MACHINE, check_tokens, software_year
from frontrunner.launcher.commands.search import USUAL_MARGIN, check_margin, needs_rates, request, wrong
from frontrunner.launcher.display.terminal import say

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.launcher.job_file import JobFile
    from frontrunner.launcher.recommendation import Advised

#: Sequences are as long as the model allows, up to this.
USUAL_SEQ_LEN = 8192


def advise(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A preset, a model file, or a folder with a config.json.")
    ],
    machine: Annotated[str, typer.Option(help="A machine preset or file.")] = USUAL_MACHINE,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on, e.g. 300e9.")] = None,
    node_hours: Annotated[float | None, typer.Option(help="Node-hours to spend at most.")] = None,
    days: Annotated[float | None, typer.Option(help="Days that it may take.")] = None,
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens per sequence (default: 8192, or the model's maximum if less).")
    ] = None,
    global_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences per step (default: about 4 Mi tokens).")
    ] = None,
    software: Annotated[str | None, typer.Option(help="Software year (default: the newest).")] = None,
    margin: Annotated[
        float, typer.Option(help="Share of each device's memory to leave free.")
    ] = USUAL_MARGIN,
    data: Annotated[
        str, typer.Option(metavar="PREFIX", help="A prepared corpus, or synthetic to measure speed.")
    ] = "synthetic",
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="The run file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how many nodes to use for a number of tokens, what that costs, and how to run it."""
    from frontrunner.launcher.display.campaign_view import show
    from frontrunner.launcher.recommendation import advised, usual_batch
    from frontrunner.launcher.written import check_free, write_text
    from frontrunner.parallelism.planner.campaign import Limits
    from frontrunner.parallelism.planner.candidates import Workload

    _check(tokens, node_hours, days)
    check_margin(margin)
    if write:
        check_free(write, force, "--write")
    assert tokens is not None
    limits = Limits(node_hours, days)
    spec = _request(model, machine, seq_len)
    needs_rates(spec)
    workload = Workload.of(spec, software_year(spec.machine, software))
    batch = global_batch_size or usual_batch(spec)
    answer = advised(spec, workload, float(round(tokens)), batch, limits, margin)
    found = _run_file(answer, model, machine, data, write)
    if write:
        write_text(write, found.text, force, "--write")
    if as_json:
        outputs = [str(write)] if write else []
        typer.echo(json.dumps(answer.as_dict() | {"run": found.keys, "outputs": outputs}))
        return
    show(answer)
    if write:
        typer.echo(f"wrote {write}")
        say(f"next: frontrunner check {write}, frontrunner submit {write} --dry-run")
    else:
        say("To get its run file: the same command with --write run.yaml")


def _check(tokens: float | None, node_hours: float | None, days: float | None) -> None:
    """SpecError for numbers that are none, or that nothing can meet."""
    if tokens is None:
        raise wrong("--tokens", None, "is missing", "say how many to train on, like 300e9")
    check_tokens(tokens)
    if tokens > LARGEST:
        raise wrong("--tokens", tokens, f"must be at most {LARGEST:.0e}", "write it like 300e9")
    for option, value, like in (("--node-hours", node_hours, "20000"), ("--days", days, "30")):
        if value is not None and not 0 < value < math.inf:
            raise wrong(option, value, "must be a number above 0", f"write it like {like}")


def _request(model: str, machine: str, seq_len: int | None) -> RunSpec:
    """The model on one node of the machine."""
    shortest = request(model, machine, 1, 1)
    longest = shortest.model.max_position_embeddings
    return request(model, machine, 1, min(USUAL_SEQ_LEN, longest) if seq_len is None else seq_len)


def _run_file(answer: Advised, model: str, machine: str, data: str, write: Path | None) -> JobFile:
    """The run file of the recommended option."""
    from frontrunner.launcher.job_file import Job, job_file

    option, queue = answer.recommended, answer.queues[answer.recommended.nodes]
    assert option.layout is not None
    job = Job(
        model,
        machine,
        option.nodes,
        option.layout,
        answer.spec.training.seq_len,
        answer.global_batch_size,
        step_time_s=option.figures["step_time_s"],
        tokens=round(answer.tokens),
        hours=24 * option.days,
        partition=queue[1].partition if queue else None,
        qos=queue[1].qos if queue else None,
        data=data,
        reasons=[
            f"{option.nodes} nodes: {answer.rule}",
            f"{option.days:,.3g} days and {option.node_hours:,.0f} node-hours, predicted",
        ],
    )
    folder = write.parent if write else Path()
    return job_file(job, "advise", folder, write.stem if write else "run")
