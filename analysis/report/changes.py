"""What to change: where a step's time goes, what the planner advises, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report import charts
from frontrunner.analysis.report.summary import ranked, why_no_plan
from frontrunner.analysis.report.table import Cell, Column, Remarks, Section, Table, table_of_runs
from frontrunner.configs.units import share_text

Figures = dict[str, Any]

MOST_WARNINGS = 200
MOST_NAMES = 3
#: The largest parts of a step that are named.
MOST_SHARES = 4
CHANGE_COLUMNS = (
    Column("change", "change"),
    Column("planned tokens/s", "gain", "gain"),
    Column("planned memory", "peak_memory_bytes", "bytes"),
)
PART_COLUMNS = (
    Column("part", "part"),
    Column("planned", "predicted_s", "seconds"),
    Column("measured", "measured_s", "seconds"),
)
#: The planner's parts of a step time, in words.
PARTS = {
    "compute": "computing",
    "recompute": "recomputing activations",
    "tensor": "tensor-parallel messages",
    "dispatch": "tokens to experts and back",
    "pipeline": "messages between stages",
    "bubble": "pipeline bubble",
    "weights": "gathering weights",
    "gradients": "reducing gradients",
    "update": "distributing updated weights",
    "optimizer": "optimizer",
    "stragglers": "waiting for the slowest device",
}


def breakdown(found: Analysis) -> Section | None:
    """Bars of where the time goes, and the largest shares as a table."""
    drawn = charts.breakdown(found.answer)
    rows = [row for run in charts.chosen(found.answer["runs"]) for row in _shares(run)]
    if not drawn and not rows:
        return None
    tables = []
    if rows:
        width = max(len(row) for row in rows)
        whole = [[*row, *[Cell("")] * (width - len(row))] for row in rows]
        heads = ["largest", "second", "third", "fourth"][: width - 2]
        tables.append(Table("Largest shares of a step", ["run", "time", *heads], whole, [False] * width))
    if known := list(_measured_parts(found.answer)):
        tables.append(table_of_runs(found.answer, "Parts that are planned and measured", PART_COLUMNS, known))
    return Section("breakdown", "Where the time goes", tables=tables, charts=drawn)


def _measured_parts(answer: Figures) -> Iterator[str]:
    for index, run in enumerate(charts.chosen(answer["runs"])):
        for number, part in enumerate((run["comparison"] or {}).get("parts", [])):
            if part["measured_s"] is not None:
                yield f"runs.{index}.comparison.parts.{number}"


def _shares(run: Figures) -> list[list[Cell]]:
    """One row of measured and one of planned shares, the largest first."""
    planned = (run["predicted"] or {}).get("step_time_parts_s") or {}
    kinds = (
        ("measured", run["parts_s"]),
        ("planned", {PARTS[part]: seconds for part, seconds in planned.items()}),
    )
    return [[Cell(run["id"]), Cell(kind), *_largest(parts)] for kind, parts in kinds if sum(parts.values())]


def _largest(parts: dict[str, float]) -> list[Cell]:
    ranked = sorted(parts.items(), key=lambda part: -part[1])[:MOST_SHARES]
    whole = sum(parts.values())
    return [Cell(f"{name} {share_text(seconds / whole)}") for name, seconds in ranked if seconds]


def changes(found: Analysis) -> Section:
    """The planner's single changes, or why there are none, and the warnings."""
    answer = found.answer
    rows, notes = [], []
    for index in ranked(answer["runs"]):
        told = (answer["runs"][index]["predicted"] or {}).get("changes", [])
        rows += [f"runs.{index}.predicted.changes.{n}" for n in range(len(told))]
    advice = []
    if rows:
        advice.append(
            table_of_runs(answer, "Changes of one key that the planner advises", CHANGE_COLUMNS, rows)
        )
        notes.append(
            "Each row changes one key of the run file and nothing else. Speed and memory are the planner's, "
            "against its own plan of the run: a step below its error is no gain."
        )
    remarks = [Remarks("", _no_advice(answer["runs"]))] if not rows else []
    if told := _warnings(found):
        remarks.append(Remarks("Warnings", told, warning=True, id="warnings"))
    return Section("changes", "What to change", notes, advice, remarks=remarks)


def _no_advice(runs: Sequence[Figures]) -> list[tuple[str, str]]:
    """Why the planner advises nothing, one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for run in runs:
        if run["format"] != "records":
            reason = "The planner advises on runs of frontrunner only, whose run file it knows"
        elif (run["predicted"] or {}).get("step_time_s") is None:
            reason = f"The planner advises nothing: {why_no_plan(run)}"
        else:
            reason = "The planner finds no change of one key that makes this run faster"
        reasons.setdefault(reason, []).append(run["id"])
    return [("" if len(reasons) == 1 else _names(names), reason) for reason, names in reasons.items()]


def _warnings(found: Analysis) -> list[tuple[str, str]]:
    """Names and warnings; equal warnings of several runs once."""
    told: dict[str, list[str]] = {}
    for run in found.answer["runs"]:
        for text in run["warnings"]:
            told.setdefault(text, []).append(run["id"])
    for each in found.answer["unread"]:
        told.setdefault(f"not read: {each['reason']}", []).append(each["path"])
    lines = [(_names(names), text) for text, names in told.items()]
    more = len(lines) - MOST_WARNINGS
    return [*lines[:MOST_WARNINGS], *([("", f"and {more:,} more")] if more > 0 else [])]


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
