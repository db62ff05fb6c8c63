"""``frontrunner search``: the best layouts for a model on a machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.commands.plan import USUAL_MACHINE, check_tokens, software_year
from frontrunner.launcher.display.search_tables import Answer, show
from frontrunner.launcher.display.terminal import say, tell

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.search import Ranking

USUAL_SEQ_LEN = 2048
#: As the planner's own (``headroom.py``), which is imported late.
USUAL_MARGIN = 0.05


def search(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A preset, a model file, or a folder with a config.json.")
    ],
    machine: Annotated[str, typer.Option(help="A machine preset or file.")] = USUAL_MACHINE,
    nodes: Annotated[int, typer.Option(help="Number of nodes.")] = 1,
    global_batch_size: Annotated[
        int | None, typer.Option(min=1, help="Sequences per step (default: about 4 Mi tokens).")
    ] = None,
    software: Annotated[str | None, typer.Option(help="Software year (default: the newest).")] = None,
    seq_len: Annotated[
        int | None, typer.Option(help="Tokens per sequence (default: 2048, or the model's maximum if less).")
    ] = None,
    tokens: Annotated[float | None, typer.Option(help="Tokens to train on, e.g. 300e9.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of layouts to show.")] = 10,
    scale: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Node counts for a scaling prediction.")
    ] = None,
    margin: Annotated[
        float, typer.Option(help="Share of each device's memory to leave free.")
    ] = USUAL_MARGIN,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The run file to write, of the recommended layout.")
    ] = None,
    row: Annotated[
        int | None, typer.Option(min=1, help="Write the layout of this rank, not the recommended one.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with figures of the layouts.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate every legal layout: the fastest that fit, and why others are slower."""
    from frontrunner.launcher.proposal import needs_layouts, usual_batch
    from frontrunner.launcher.written import check_free, write_text
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.choose import simplest
    from frontrunner.parallelism.planner.headroom import with_margin
    from frontrunner.parallelism.planner.search import search as judge_all
    from frontrunner.parallelism.planner.starvation import starved

    check_tokens(tokens)
    check_margin(margin)
    if write:
        check_free(write, force, "--write")
    elif row is not None:
        raise wrong("--row", row, "says which layout to write, and no file is named", "add --write FILE")
    if report:
        check_page(report, force)
    spec = request(model, machine, nodes, seq_len)
    batch = global_batch_size or usual_batch(spec)
    needs_rates(spec)
    workload = Workload.of(spec, software_year(spec.machine, software))
    started = time.perf_counter()
    ranking, left_out = with_margin(judge_all(workload, nodes, batch), margin)
    elapsed = time.perf_counter() - started
    needs_layouts(ranking, spec, batch, margin=margin)
    choice = simplest(ranking)
    assert choice
    answer = Answer(
        ranking,
        spec,
        batch,
        elapsed,
        tokens,
        published(ranking, spec),
        _scaling(workload, spec, batch, scale, margin) if scale else [],
        margin,
        left_out,
        choice,
        starved(ranking, nodes, batch, margin),
    )
    outputs = []
    if write:
        written = _run_file(answer, model, machine, row, write)
        write_text(write, written, force, "--write")
        outputs = [str(write)]
    if report:
        write_page(answer, report, force)
        outputs.append(str(report))
    for warning in answer.warnings():
        say(f"warning: {warning}")
    if as_json:
        typer.echo(json.dumps(answer.as_dict(top) | {"outputs": outputs}))
        return
    show(answer, top)
    if report:
        tell(f"wrote {report}")
    if write:
        tell(f"wrote {write}")
        say(f"next: frontrunner check {write}, frontrunner submit {write} --dry-run")


def check_page(report: Path, force: bool) -> None:
    """SpecError if the page cannot be written there; RunFailed if what draws it is missing."""
    from frontrunner.launcher.errors import try_import
    from frontrunner.launcher.written import check_free

    if not report.is_dir() and report.suffix.lower() not in (".html", ".htm"):
        fix = f"write {report.with_suffix('.html')}"
        raise wrong("--report", str(report), "must end in .html: it is a page", fix)
    check_free(report, force, "--report", "layouts.html")
    for package in ("polars", "plotly"):
        try_import(package, "analysis")


def write_page(answer: Answer, report: Path, force: bool) -> None:
    """Write the page of a search."""
    from frontrunner.analysis.report.layouts import page
    from frontrunner.launcher.layout_report import report as figures
    from frontrunner.launcher.written import write_text

    counts = [row["nodes"] for row in answer.scaling] or None
    write_text(report, "".join(page(figures(answer, counts))), force, "--report")


def _run_file(answer: Answer, model: str, machine: str, row: int | None, write: Path) -> str:
    """The run file of that rank, or of the recommended layout."""
    from frontrunner.launcher.job_file import Job, job_file

    ranking, spec, choice = answer.ranking, answer.spec, answer.choice
    count = len(ranking.order)
    if row is not None and row > count:
        raise wrong("--row", row, f"there are {count:,} layouts that fit", f"use 1 to {count}")
    index = choice.index if row is None else int(ranking.order[row - 1])
    assert ranking.estimated.time
    reasons = [f"rank {answer.place(index):,} of {count:,} layouts that fit"]
    if row is None:
        reasons.append(answer.why())
    job = Job(
        model,
        machine,
        spec.nodes,
        ranking.space.layout(index),
        spec.training.seq_len,
        answer.global_batch_size,
        step_time_s=float(ranking.estimated.time.total[index]),
        tokens=None if answer.tokens is None else round(answer.tokens),
        reasons=reasons,
    )
    return job_file(job, "search", write.parent, write.stem).text


def check_margin(margin: float) -> None:
    """SpecError if it is not a share of memory to leave free."""
    if not 0 <= margin < 1:
        raise wrong("--margin", margin, "must be a share from 0 to below 1", "write 0.05 for 5 %")


def wrong(option: str, value: object, constraint: str, fix: str) -> SpecError:
    return SpecError([Violation(option, value, constraint, fix)])


def request(model: str, machine: str, nodes: int, seq_len: int | None) -> RunSpec:
    """The model on the machine; SpecError for invalid names and numbers."""
    from frontrunner.configs.load import load_machine, load_run

    devices = load_machine(machine).devices_per_node * max(nodes, 1)
    overrides = [f"model={json.dumps(model)}", f"machine={json.dumps(machine)}", f"nodes={nodes}"]
    overrides += ["layout.pipeline=1", "layout.micro_batch_size=1", f"training.global_batch_size={devices}"]
    if seq_len is not None:
        return load_run("gpt-22b-frontier", [*overrides, f"training.seq_len={seq_len}"]).spec
    # Short enough for any model; only max_position_embeddings is read here.
    shortest = load_run("gpt-22b-frontier", [*overrides, "training.seq_len=1"]).spec
    longest = min(USUAL_SEQ_LEN, shortest.model.max_position_embeddings)
    training = shortest.training.model_copy(update={"seq_len": longest})
    return shortest.model_copy(update={"training": training})


def needs_rates(spec: RunSpec) -> None:
    """SpecError if nothing is known of the machine's speed."""
    if not spec.machine.software:
        raise SpecError(
            [
                Violation(
                    "machine.software",
                    None,
                    f"{spec.machine.name}'s machine file has no measured rates",
                    "add a `software` section, as in frontier's",
                )
            ]
        )


def published(ranking: Ranking, spec: RunSpec) -> list[dict[str, Any]]:
    """Rank of this model's published layouts (run presets), and their costs."""
    from frontrunner.configs import presets
    from frontrunner.configs.load import load_run
    from frontrunner.parallelism.layout import Layout
    from frontrunner.parallelism.planner.candidates import Candidates
    from frontrunner.parallelism.planner.search import compare

    found: list[dict[str, Any]] = []
    for name in presets.names("run"):
        known = load_run(name).spec
        if known.model != spec.model:
            continue
        devices = spec.world_size // (known.layout.tensor * known.layout.pipeline)
        sequences = max(1, devices * known.layout.micro_batch_size)
        moved = known.model_copy(
            update={
                "nodes": spec.nodes,
                "machine": spec.machine,
                "training": known.training.model_copy(update={"global_batch_size": sequences}),
            }
        )
        try:
            place = ranking.place(Candidates.of(moved, Layout.from_spec(moved)))
        except SpecError:
            place = None
        entry: dict[str, Any] = {"name": name, "place": None}
        if place is not None:
            index = int(ranking.order[place])
            speed = ranking.estimated.tokens_per_s
            losses = compare(ranking.estimated, index, int(ranking.order[0]))
            entry |= {
                "place": place + 1,
                "of": len(ranking.space.candidates),
                "speed_of_best": float(speed[index] / speed[ranking.order[0]]),
                "loses_by": {part: loss for part, loss in losses.items() if loss > 0.005},
                "wins_by": {part: -loss for part, loss in losses.items() if loss < -0.005},
            }
        found.append(entry)
    return found


def _scaling(
    workload: Workload, spec: RunSpec, batch: int, scale: str, margin: float
) -> list[dict[str, Any]]:
    """The best layout at each node count: the batch grows in weak scaling, and is fixed in strong scaling."""
    from frontrunner.parallelism.planner.headroom import with_margin
    from frontrunner.parallelism.planner.search import search as judge_all

    try:
        counts = sorted({int(part) for part in scale.split(",")})
    except ValueError:
        counts = []
    most = spec.machine.num_nodes
    if not counts or counts[0] < 1 or counts[-1] > most:
        fix = "write them like 16,32,64"
        raise SpecError([Violation("--scale", scale, f"must be node counts from 1 to {most}", fix)])
    found: list[dict[str, Any]] = []
    for count in counts:
        row: dict[str, Any] = {"nodes": count}
        for kind, size in (("weak", max(1, round(batch * count / spec.nodes))), ("strong", batch)):
            ranking, _ = with_margin(judge_all(workload, count, size), margin)
            best = int(ranking.order[0]) if len(ranking.order) else None
            row[kind] = None
            if best is not None:
                speed = float(ranking.estimated.tokens_per_s[best])
                row[kind] = {
                    "global_batch_size": size,
                    "tokens_per_s_per_device": speed,
                    "layout": ranking.space.layout(best),
                }
        found.append(row)
    for kind in ("weak", "strong"):
        first = next((row[kind]["tokens_per_s_per_device"] for row in found if row[kind]), None)
        for row in found:
            if row[kind]:
                row[kind]["efficiency"] = row[kind]["tokens_per_s_per_device"] / first
    return found
