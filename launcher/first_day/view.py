"""The report of a first day: a verdict for each part, then the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from frontrunner.configs.units import (
    bytes_text,
    change_text,
    count_text,
    digits,
    flops_text,
    seconds_text,
    share_text,
)
from frontrunner.launcher.display.tables import Table

Figures = dict[str, Any]


def parts(answer: Figures) -> Iterator[Table | str]:
    """What to print, in order."""
    run = answer["run"]
    where = run["device"] or run["machine"]
    yield f"{run['model']} on {run['devices']} devices of one node ({where}, machine {run['machine']})"
    yield from run["notes"]
    yield ""
    yield _verdicts(answer["parts"])
    if any(part["difference"] is not None for part in answer["parts"]):
        yield "Differences are of measured seconds, or bytes of memory, from the planner's."
    tables = (_steps, _memory, _kernels, _products, _attention, _collectives)
    for table in tables:
        if (shown := table(answer)) is not None:
            yield ""
            yield shown
    for machine in answer["outputs"]:
        yield ""
        yield f"wrote {machine}; use it with `frontrunner plan {run['model']} --machine {machine}`"


def _verdicts(rows: Sequence[Figures]) -> Table:
    shown = [(row["part"], said(row), seconds_text(row["seconds"])) for row in rows]
    return Table("", ("part", "verdict", "time"), shown, texts=(0, 1))


def said(row: Figures) -> str:
    """A verdict as people read it: ``differs from the plan by -12.3 %``."""
    verdict, why, difference = row["verdict"], row["why"], row["difference"]
    if verdict == "differs":
        return f"differs from the plan by {change_text(100 * difference)}"
    if verdict == "ok" and difference is not None:
        return f"ok ({change_text(100 * difference)} of the plan)"
    return f"{verdict}: {why}" if why else str(verdict)


def _steps(answer: Figures) -> Table | None:
    if not answer["steps"]:
        return None
    headings = ("engine", "step", "plan", "tokens/s per device", "model FLOP/s", "MFU", "peak memory")
    rows = [
        (
            row["engine"],
            seconds_text(row["step_time_s"]),
            seconds_text(row["planned_step_time_s"]),
            digits(row["tokens_per_s_per_device"]),
            flops_text(row["model_flops_per_s_per_device"]),
            share_text(row["mfu"]),
            bytes_text(row["peak_memory_bytes"]),
        )
        for row in answer["steps"]
    ]
    return Table("one step", headings, rows)


def _memory(answer: Figures) -> str | None:
    memory = answer["memory"]
    if memory["measured_bytes"] is None or memory["why"]:
        return None
    measured, planned = (bytes_text(memory[key]) for key in ("measured_bytes", "planned_bytes"))
    return f"peak memory of a device: {measured}, planned for tensors {planned}"


def _kernels(answer: Figures) -> Table | None:
    if not answer["kernels"]:
        return None
    rows = [
        (
            f"{row['operation']} {row['wire']}",
            f"{bytes_text(row['bytes_per_s'])}/s",
            share_text(row["share_of_copy"]),
        )
        for row in answer["kernels"]
    ]
    return Table("wire formats", ("kernel", "moves", "of a copy's rate"), rows)


def _products(answer: Figures) -> Table | None:
    if not answer["products"]:
        return None
    rows = [
        (
            row["product"],
            f"{count_text(row['m'])} x {count_text(row['k'])} x {count_text(row['n'])}",
            flops_text(row["flops_per_s"]),
            seconds_text(row["seconds"]),
            seconds_text(row["planned_s"]),
        )
        for row in answer["products"]
    ]
    return Table("matrix products", ("product", "m x k x n", "rate", "time", "plan"), rows)


def _attention(answer: Figures) -> Table | None:
    if not answer["attention"]:
        return None
    rows = [
        (
            f"heads of {row['head_dim']}",
            count_text(row["seq_len"]),
            flops_text(row["forward_flops_per_s"]),
            flops_text(row["planned_flops_per_s"]),
            f"{digits(row['backward_of_forward'])} x forward",
        )
        for row in answer["attention"]
    ]
    return Table("attention", ("size", "tokens", "forward", "plan", "backward"), rows)


def _collectives(answer: Figures) -> Table | None:
    """The smallest and the largest size of each; ``--json`` has all."""
    kinds: dict[tuple[Any, ...], list[Figures]] = {}
    for row in answer["collectives"]:
        kinds.setdefault((row["ranks"], row["stride"], row["operation"]), []).append(row)
    if not kinds:
        return None
    shown = [row for rows in kinds.values() for row in (rows[0], rows[-1])[: len(rows)]]
    rules = [n for n, (one, other) in enumerate(pairwise(shown), 1) if one["groups"] != other["groups"]]
    headings = ("groups", "operation", "ranks", "level", "bytes", "time", "plan")
    table = [
        (
            ", ".join(row["groups"]),
            row["operation"],
            count_text(row["ranks"]),
            row["level"],
            bytes_text(row["bytes"]),
            seconds_text(row["seconds"]),
            seconds_text(row["planned_s"]),
        )
        for row in shown
    ]
    return Table("collectives", headings, table, (0, 1, 3), rules)
