"""The sections of the report: tables and figures, from the object that ``--json`` prints.

A section is a function of an analysis. It returns a :class:`Section`, or None if it has nothing to show.
To add a section, write a function over the JSON and add a line to :data:`SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from frontrunner.analysis.analyze import Analysis, titles
from frontrunner.analysis.report import changes, charts, charts_planner, losses, summary, sweeps
from frontrunner.analysis.report.table import MOST_ROWS, Column, Remarks, Section, table
from frontrunner.configs.units import digits, seconds_text

Figures = dict[str, Any]

RUN_COLUMNS = (
    Column("run", "id"),
    Column("format", "format"),
    Column("machine", "machine"),
    Column("devices", "devices", "count"),
    Column("tensor", "layout.tensor", "count"),
    Column("pipeline", "layout.pipeline", "count"),
    Column("data", "layout.data", "count"),
    Column("sharding", "layout.sharding"),
    Column("recompute", "layout.recompute"),
    Column("precision", "precision"),
    Column("global batch", "global_batch_size", "count"),
    Column("steps", "steps", "count"),
    Column("steady", "steady.steady", "count"),
    Column("lines lost", "lost_lines", "count"),
)
SPEED_COLUMNS = (
    Column("run", "id"),
    Column("step", "step_time_s", "seconds"),
    Column("p5", "step_time_p5_s", "seconds"),
    Column("p95", "step_time_p95_s", "seconds"),
    Column("tokens/s per device", "tokens_per_s_per_device", "number"),
    Column("model FLOP/s", "model_flops_per_s_per_device", "flops"),
    Column("MFU", "mfu", "share"),
    Column("hardware FLOP/s", "hardware_flops_per_s_per_device", "flops"),
    Column("HFU", "hfu", "share"),
    Column("printed FLOP/s", "printed_flops_per_s_per_device", "flops"),
    Column("which counts", "printed_flop_convention"),
    Column("communication", "communication.share", "share"),
    Column("memory", "memory_bytes", "bytes"),
)
TRAFFIC_COLUMNS = (
    Column("run", "id"),
    Column("package", "bytes_per_step.package", "bytes"),
    Column("node", "bytes_per_step.node", "bytes"),
    Column("network", "bytes_per_step.network", "bytes"),
)
SCALING_COLUMNS = (
    Column("devices", "devices", "count"),
    Column("step", "step_time_s", "seconds"),
    Column("tokens/s per device", "tokens_per_s_per_device", "number"),
    Column("speed-up", "speedup", "number"),
    Column("efficiency", "efficiency", "share"),
    Column("95 % from", "efficiency_interval.0", "share"),
    Column("to", "efficiency_interval.1", "share"),
    Column("serial fraction", "serial_fraction", "share"),
)
AHEAD_COLUMNS = (
    Column("devices", "devices", "count"),
    Column("step", "step_time_s", "seconds"),
    Column("95 % from", "step_time_interval_s.0", "seconds"),
    Column("to", "step_time_interval_s.1", "seconds"),
    Column("speed-up", "speedup", "number"),
    Column("efficiency", "efficiency", "share"),
)
PREDICTED_COLUMNS = (
    Column("run", "id"),
    Column("planned step", "predicted.step_time_s", "seconds"),
    Column("measured step", "step_time_s", "seconds"),
    Column("95 % from", "step_time_interval_s.0", "seconds"),
    Column("to", "step_time_interval_s.1", "seconds"),
    Column("step against plan", "comparison.step_time_against_plan_pct", "change"),
    Column("planned memory", "predicted.peak_memory_bytes_per_device", "bytes"),
    Column("measured memory", "memory_bytes", "bytes"),
    Column("memory against plan", "comparison.memory_against_plan_pct", "change"),
)


def _places(answer: Figures, wanted: Callable[[Figures], Any] = lambda run: True) -> list[str]:
    return [f"runs.{index}" for index, run in enumerate(answer["runs"]) if wanted(run)]


def _summary(found: Analysis) -> Section:
    return summary.section(found.answer)


def _runs(found: Analysis) -> Section:
    answer = found.answer
    more = len(answer["runs"]) - MOST_ROWS
    notes = [f"{more:,} more runs are not shown; add --csv to get all."] if more > 0 else []
    return Section("runs", "Runs", notes, [table(answer, "What ran", RUN_COLUMNS, _places(answer))])


def _speed(found: Analysis) -> Section:
    answer = found.answer
    tables = [
        table(
            answer,
            "Medians of the steady steps; FLOP/s and memory are per device",
            SPEED_COLUMNS,
            _places(answer),
        )
    ]
    if levels := _places(answer, lambda run: run["bytes_per_step"]):
        tables.append(table(answer, "Bytes that a rank sends per step, by level", TRAFFIC_COLUMNS, levels))
    return Section("speed", "Speed", [f"Steady steps: {answer['runs'][0]['steady']['rule']}."], tables)


def _scaling(found: Analysis) -> Section | None:
    answer = found.answer
    if not answer["scaling"]:
        return None
    tables = []
    for index, (title, group) in enumerate(zip(titles(answer), answer["scaling"], strict=True)):
        place = f"scaling.{index}"
        points = [f"{place}.points.{n}" for n in range(len(group["points"]))]
        ahead = [f"{place}.predictions.{n}" for n in range(len(group["predictions"]))]
        tables.append(table(answer, title.capitalize(), SCALING_COLUMNS, points))
        if ahead:
            tables.append(table(answer, f"The fit's next doublings: {title}", AHEAD_COLUMNS, ahead))
    notes = [
        "Efficiency and speed-up are relative to the smallest run of a group. The 95 % intervals are from "
        "resampled steps. They cover noise within these runs, not other days or other nodes.",
        *_fits(answer),
    ]
    return Section("scaling", "Scaling", notes, tables, charts.scaling(answer))


def _fits(answer: Figures) -> Iterator[str]:
    for title, group in zip(titles(answer), answer["scaling"], strict=True):
        fit = group["fit"]
        off = fit["largest_error_pct"]
        checked = "exact for two points" if off is None else f"within {digits(off)} % of all points"
        yield (
            f"Fit of {title}: a step takes {fit['formula']} on p times the smallest run's devices, "
            f"with a = {seconds_text(fit['a_s'])} and b = {seconds_text(fit['b_s'])} ({checked})."
        )


def _memory(found: Analysis) -> Section | None:
    drawn = charts.memory(found.answer)
    return Section("memory", "Memory", charts=drawn) if drawn else None


def _losses(found: Analysis) -> Section | None:
    drawn = losses.losses(found)
    return Section("losses", "Loss", charts=drawn) if drawn else None


def _roofline(found: Analysis) -> Section | None:
    drawn = charts_planner.roofline(found.answer)
    notes = [
        "Kernel rates are the planner's, not measured in these runs; their sources are in the machine file. "
        "Traffic counts each operand once."
    ]
    return Section("roofline", "Roofline", notes, charts=drawn) if drawn else None


def _predicted(found: Analysis) -> Section | None:
    answer = found.answer
    order = summary.ranked(answer["runs"])
    places = [f"runs.{index}" for index in order if answer["runs"][index]["predicted"]]
    if not places:
        return None
    tables = [table(answer, "Step time and memory", PREDICTED_COLUMNS, places)]
    notes = [
        "The planner gives one figure without an interval; the intervals are of the measured median, from "
        "resampled steps."
    ]
    drawn = charts_planner.predicted(answer)
    return Section("predicted", "Measured against planned", notes, tables, drawn)


def _assumptions(found: Analysis) -> Section | None:
    plans = [run["predicted"] for run in found.answer["runs"] if run["predicted"]][:20]
    said = dict.fromkeys(text for plan in plans for text in plan["assumptions"])
    if not said:
        return None
    lines = [("", text) for text in said]
    return Section("assumptions", "What the plans assume", remarks=[Remarks("", lines)])


def _sweeps(found: Analysis) -> Section | None:
    return sweeps.section(found.answer)


#: The questions of a reader in their order: how fast, how far from the plan, what to change; then details.
SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    _summary,
    _predicted,
    changes.breakdown,
    changes.changes,
    _scaling,
    _memory,
    _losses,
    _roofline,
    _sweeps,
    _speed,
    _runs,
    _assumptions,
)


def sections(found: Analysis) -> list[Section]:
    """All sections that have something to show, in order."""
    return [section for make in SECTIONS if (section := make(found)) is not None]
