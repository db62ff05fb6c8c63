"""Prints an analysis as tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.text import Text

from frontrunner.analysis.analyze import titles
from frontrunner.configs.units import (
    UNKNOWN,
    bytes_text,
    change_text,
    digits,
    flops_text,
    number_text,
    seconds_text,
    share_text,
)
from frontrunner.launcher.display.tables import Table

Figures = dict[str, Any]
#: Further runs are shown only by --csv and --report.
MOST_RUNS = 40


def parts(answer: Figures) -> Iterator[Table | Text | str]:
    """What to print, in order."""
    shown = answer["runs"][:MOST_RUNS]
    yield _runs(shown)
    yield _speed(shown)
    if (more := len(answer["runs"]) - MOST_RUNS) > 0:
        yield f"and {more} more runs: use --csv FILE or --report FILE.html for all"
    yield f"steady steps: {answer['runs'][0]['steady']['rule']}"
    for title, group in zip(titles(answer), answer["scaling"], strict=True):
        yield ""
        yield _scaling(title, group)
        yield from _fit(group)
    if any(run["predicted"] for run in shown):
        yield ""
        yield _predicted(shown)
    for run in shown:
        for warning in run["warnings"]:
            yield Text(f"{run['id']}: {warning}", style="yellow")


def _runs(runs: list[Figures]) -> Table:
    headings = ("run", "format", "devices", "layout", "precision", "batch", "steps", "lost lines")
    rows = [
        (
            run["id"],
            run["format"],
            number_text(run["devices"], "d"),
            layout_text(run["layout"]),
            run["precision"] or UNKNOWN,
            number_text(run["global_batch_size"], "d"),
            f"{run['steady']['steady']} of {run['steps']}",
            str(run["lost_lines"]),
        )
        for run in runs
    ]
    return Table("runs", headings, rows, texts=(0, 1, 3, 4))


def _speed(runs: list[Figures]) -> Table:
    title = "medians of the steady steps; tokens, FLOPs and memory per device"
    figures = ("step", "p5", "p95", "tokens/s", "model FLOP/s", "MFU", "hardware FLOP/s", "waits", "memory")
    rows = [
        (
            run["id"],
            *(seconds_text(run[f"step_time_{which}s"]) for which in ("", "p5_", "p95_")),
            digits(run["tokens_per_s_per_device"]),
            flops_text(run["model_flops_per_s_per_device"]),
            share_text(run["mfu"]),
            flops_text(run["hardware_flops_per_s_per_device"]),
            share_text(run["communication"]["share"]),
            bytes_text(run["memory_bytes"]),
        )
        for run in runs
    ]
    return Table(title, ("run", *figures), rows)


def layout_text(layout: Figures) -> str:
    """``tensor 8, pipeline 8, data 2, zero1``; a dash if nothing is known."""
    known = [f"{key} {layout[key]}" for key in ("tensor", "pipeline", "data") if layout.get(key)]
    return ", ".join([*known, *([str(layout["sharding"])] if layout.get("sharding") else [])]) or UNKNOWN


def interval_text(bounds: list[float] | None) -> str:
    return UNKNOWN if bounds is None else f"{share_text(bounds[0])} to {share_text(bounds[1])}"


def _scaling(title: str, group: Figures) -> Table:
    headings = ("devices", "step", "tokens/s per device", "speed-up", "efficiency", "95 %", "serial fraction")
    rows = [
        (
            str(point["devices"]),
            seconds_text(point["step_time_s"]),
            digits(point["tokens_per_s_per_device"]),
            digits(point["speedup"]),
            share_text(point["efficiency"]),
            interval_text(point["efficiency_interval"]),
            share_text(point["serial_fraction"]),
        )
        for point in group["points"]
    ]
    return Table(title, headings, rows, texts=())


def _fit(group: Figures) -> Iterator[str]:
    fit = group["fit"]
    off = fit["largest_error_pct"]
    checked = "exact (two points)" if off is None else f"within {off:.1f} % of the points"
    constants = f"a = {seconds_text(fit['a_s'])}, b = {seconds_text(fit['b_s'])}"
    yield f"fit: {fit['formula']} with {constants}, {checked}"
    for each in group["predictions"]:
        yield (
            f"  {each['devices']} devices by that fit: {seconds_text(each['step_time_s'])} per step, "
            f"efficiency {share_text(each['efficiency'])}"
        )


def _predicted(runs: list[Figures]) -> Table:
    headings = ("run", "step planned", "measured", "error", "memory planned", "measured", "error")
    rows = [
        (
            run["id"],
            seconds_text(plan["step_time_s"]),
            seconds_text(run["step_time_s"]),
            change_text(run["comparison"]["step_time_error_pct"]),
            bytes_text(plan["peak_memory_bytes_per_device"]),
            bytes_text(run["memory_bytes"]),
            change_text(run["comparison"]["memory_error_pct"]),
        )
        for run in runs
        if (plan := run["predicted"]) is not None
    ]
    return Table("the planner against these runs", headings, rows)
