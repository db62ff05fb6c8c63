"""``frontrunner search``: the best layouts for a model on a machine."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.units import bytes_text
from frontrunner.launcher.commands.plan import check_tokens, software_year
from frontrunner.launcher.display.search_tables import Answer, layout_text, show

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.search import Ranking

#: Default tokens per step, as in Dash et al. and Llama.
USUAL_TOKENS = 4 * 2**20
USUAL_SEQ_LEN = 2048


def search(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset, a model file or a config.json.")],
    machine: Annotated[str, typer.Option(help="A machine preset or file.")] = "frontier",
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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate every legal layout: the fastest that fit, and why others are slower."""
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.search import search as judge_all

    check_tokens(tokens)
    spec = request(model, machine, nodes, seq_len)
    batch = global_batch_size or usual_batch(spec)
    _needs_rates(spec)
    workload = Workload.of(spec, software_year(spec, software))
    started = time.perf_counter()
    ranking = judge_all(workload, nodes, batch)
    elapsed = time.perf_counter() - started
    _needs_layouts(ranking, spec, batch)
    scaling = _scaling(workload, spec, batch, scale) if scale else []
    answer = Answer(ranking, spec, batch, elapsed, tokens, published(ranking, spec), scaling)
    if as_json:
        typer.echo(json.dumps(answer.as_dict(top)))
    else:
        show(answer, top)


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


def usual_batch(spec: RunSpec) -> int:
    """About :data:`USUAL_TOKENS`, equal for every device."""
    return max(1, round(USUAL_TOKENS / spec.training.seq_len / spec.world_size)) * spec.world_size


def _needs_rates(spec: RunSpec) -> None:
    from frontrunner.configs.errors import SpecError, Violation

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


def _needs_layouts(ranking: Ranking, spec: RunSpec, batch: int) -> None:
    """SpecError if no layout is legal, or if none fits; names the nearest miss."""
    from frontrunner.configs.errors import SpecError, Violation

    if len(ranking.order):
        return
    if not len(ranking.space.candidates):
        raise SpecError(
            [
                Violation(
                    "--global-batch-size",
                    batch,
                    f"no layout of {spec.model.name} on {spec.world_size} devices divides this batch size",
                    f"use a multiple of {spec.world_size}",
                )
            ]
        )
    nearest = ranking.nearest_miss()
    need, has = float(ranking.estimated.memory.peak[nearest]), spec.machine.device.memory_bytes
    raise SpecError(
        [
            Violation(
                "--nodes",
                spec.nodes,
                f"none of {len(ranking.space.candidates)} layouts of {spec.model.name} fits; the nearest, "
                f"{layout_text(ranking, nearest)}, needs {bytes_text(need)} of {bytes_text(float(has))} per "
                f"device, {bytes_text(need - has)} over",
                f"use about {-(-int(spec.nodes * need) // has)} nodes or more",
            )
        ]
    )


def published(ranking: Ranking, spec: RunSpec) -> list[dict[str, Any]]:
    """Rank of this model's published layouts (run presets), and their costs."""
    from frontrunner.configs import presets
    from frontrunner.configs.errors import SpecError
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


def _scaling(workload: Workload, spec: RunSpec, batch: int, scale: str) -> list[dict[str, Any]]:
    """The best layout at each node count: the batch grows in weak scaling, and is fixed in strong scaling."""
    from frontrunner.configs.errors import SpecError, Violation
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
            ranking = judge_all(workload, count, size)
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
