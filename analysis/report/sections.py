"""The sections of the report: tables and figures, from the object that ``--json`` prints.

A section is a function of an analysis. It returns a :class:`Section`, or None if it has nothing to show.
To add a section, write a function over the JSON and add a line to :data:`SECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from frontrunner.analysis.analyze import Analysis, titles
from frontrunner.analysis.report import charts, charts_planner, sweeps
from frontrunner.analysis.report.table import MOST_ROWS, Column, Section, table, value_at

Figures = dict[str, Any]

RUN_COLUMNS = (
    Column("run", "id"),
    Column("format", "format"),
    Column("machine", "machine"),
    Column("devices", "devices", ",d"),
    Column("tensor", "layout.tensor", "d"),
    Column("pipeline", "layout.pipeline", "d"),
    Column("data", "layout.data", "d"),
    Column("sharding", "layout.sharding"),
    Column("recompute", "layout.recompute"),
    Column("precision", "precision"),
    Column("global batch", "global_batch_size", ",d"),
    Column("steps", "steps", ",d"),
    Column("steady", "steady.steady", ",d"),
    Column("lines lost", "lost_lines", ",d"),
)
SPEED_COLUMNS = (
    Column("run", "id"),
    Column("step (s)", "step_time_s", ",.4g"),
    Column("p5 (s)", "step_time_p5_s", ",.4g"),
    Column("p95 (s)", "step_time_p95_s", ",.4g"),
    Column("tokens/s", "tokens_per_s_per_device", ",.1f"),
    Column("model TFLOP/s", "model_flops_per_s_per_device", ",.4g", 1e12),
    Column("MFU", "mfu", ".1%"),
    Column("hardware TFLOP/s", "hardware_flops_per_s_per_device", ",.4g", 1e12),
    Column("HFU", "hfu", ".1%"),
    Column("printed TFLOP/s", "printed_flops_per_s_per_device", ",.4g", 1e12),
    Column("convention", "printed_flop_convention"),
    Column("communication", "communication.share", ".1%"),
    Column("memory (GiB)", "memory_bytes", ",.1f", 2**30),
)
TRAFFIC_COLUMNS = (
    Column("run", "id"),
    Column("package (MiB)", "bytes_per_step.package", ",.2f", 2**20),
    Column("node (MiB)", "bytes_per_step.node", ",.2f", 2**20),
    Column("network (MiB)", "bytes_per_step.network", ",.2f", 2**20),
)
SCALING_COLUMNS = (
    Column("devices", "devices", ",d"),
    Column("step (s)", "step_time_s", ",.4g"),
    Column("tokens/s per device", "tokens_per_s_per_device", ",.1f"),
    Column("speed-up", "speedup", ".2f"),
    Column("efficiency", "efficiency", ".1%"),
    Column("from", "efficiency_interval.0", ".1%"),
    Column("to", "efficiency_interval.1", ".1%"),
    Column("serial fraction", "serial_fraction", ".2%"),
)
AHEAD_COLUMNS = (
    Column("devices", "devices", ",d"),
    Column("step (s)", "step_time_s", ",.4g"),
    Column("from (s)", "step_time_interval_s.0", ",.4g"),
    Column("to (s)", "step_time_interval_s.1", ",.4g"),
    Column("speed-up", "speedup", ".2f"),
    Column("efficiency", "efficiency", ".1%"),
)
PREDICTED_COLUMNS = (
    Column("run", "id"),
    Column("planned step (s)", "predicted.step_time_s", ",.4g"),
    Column("measured (s)", "step_time_s", ",.4g"),
    Column("error (%)", "comparison.step_time_error_pct", "+.1f"),
    Column("planned memory (GiB)", "predicted.peak_memory_bytes_per_device", ",.1f", 2**30),
    Column("measured (GiB)", "memory_bytes", ",.1f", 2**30),
    Column("error (%)", "comparison.memory_error_pct", "+.1f"),
)
PART_COLUMNS = (
    Column("part", "part"),
    Column("planned (s)", "predicted_s", ",.4g"),
    Column("measured (s)", "measured_s", ",.4g"),
)


def _places(answer: Figures, wanted: Callable[[Figures], Any] = lambda run: True) -> list[str]:
    return [f"runs.{index}" for index, run in enumerate(answer["runs"]) if wanted(run)]


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
            "Medians of the steady steps; tokens, FLOPs and memory are per device",
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
        'Efficiency and speed-up are relative to the smallest run of a group. "From" and "to" bound 95 % '
        "intervals from resampled steps. They cover noise within these runs, not other days or other nodes.",
        *_fits(answer),
    ]
    return Section("scaling", "Scaling", notes, tables, charts.scaling(answer))


def _fits(answer: Figures) -> Iterator[str]:
    for title, group in zip(titles(answer), answer["scaling"], strict=True):
        fit = group["fit"]
        off = fit["largest_error_pct"]
        checked = "exact for two points" if off is None else f"within {off:.1f} % of all points"
        yield (
            f"Fit of {title}: a step takes {fit['formula']} on p times the smallest run's devices, "
            f"with a = {fit['a_s']:.4g} s and b = {fit['b_s']:.4g} s ({checked})."
        )


def _breakdown(found: Analysis) -> Section | None:
    drawn = charts.breakdown(found.answer)
    return Section("breakdown", "Where the time goes", charts=drawn) if drawn else None


def _memory(found: Analysis) -> Section | None:
    drawn = charts.memory(found.answer)
    return Section("memory", "Memory", charts=drawn) if drawn else None


def _losses(found: Analysis) -> Section | None:
    drawn = charts.losses(found)
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
    places = _places(answer, lambda run: run["predicted"])
    if not places:
        return None
    tables = [table(answer, "Planned against measured", PREDICTED_COLUMNS, places)]
    for place in places[: charts.MOST_RUNS]:
        run = value_at(answer, place)
        parts = [f"{place}.comparison.parts.{n}" for n in range(len(run["comparison"]["parts"]))]
        if any(part["measured_s"] is not None for part in run["comparison"]["parts"]):
            tables.append(table(answer, f"Difference by part: {run['id']}", PART_COLUMNS, parts))
    plans = [value_at(answer, place)["predicted"] for place in places[:20]]
    said = dict.fromkeys(text for plan in plans for text in plan["assumptions"])
    notes = ["The plans assume:", *said]
    return Section("predicted", "Planned against measured", notes, tables, charts_planner.predicted(answer))


def _sweeps(found: Analysis) -> Section | None:
    return sweeps.section(found.answer)


SECTIONS: tuple[Callable[[Analysis], Section | None], ...] = (
    _runs,
    _speed,
    _scaling,
    _breakdown,
    _memory,
    _losses,
    _roofline,
    _predicted,
    _sweeps,
)


def sections(found: Analysis) -> list[Section]:
    """All sections that have something to show, in order."""
    return [section for make in SECTIONS if (section := make(found)) is not None]
