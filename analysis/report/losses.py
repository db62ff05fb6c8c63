"""The figure of losses: training, smoothed over the raw loss, and validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.charts import chosen, not_drawn
from frontrunner.configs.units import digits

MOST_POINTS = 400
#: Fewer steps than this are drawn as they are.
FEWEST_SMOOTHED = 10
#: A mean covers this share of the steps.
SMOOTHED_SHARE = 0.05


def losses(found: Analysis) -> list[Chart]:
    """Training and validation loss by step, in one figure; none if there is no loss."""
    runs = chosen(found.answer["runs"])
    one = len(runs) == 1
    raw, lines, points, windows = [], [], [], []
    for index, run in enumerate(runs):
        steps = found.steps.filter((pl.col("run") == index) & pl.col("loss").is_finite())
        window = smoothing(steps.height)
        name = "training" if one else run["id"]
        if window > 1:
            windows.append(window)
            raw.append(_line(f"{name}, each step", steps, index, raw=True))
        if steps.height:
            smooth = steps.with_columns(pl.col("loss").rolling_mean(window, center=True, min_samples=1))
            lines.append(_line(name, smooth, index))
        if run["validation"]:
            points.append(_validation(run, index, one, listed=one or not steps.height))
    if not [*lines, *points]:
        return []
    notes = not_drawn(found.answer["runs"])
    if windows:
        notes.append(f"Lines are {_means(windows)}; the faint ones behind are the loss of each step.")
    if points and not one:
        notes.append("Dashed lines with marks are validation losses, in the colours of their runs.")
    return [Chart("losses", "Loss", "step", "loss", [*raw, *lines, *points], _words(runs), notes=notes)]


def smoothing(steps: int) -> int:
    """Steps in a mean, an odd number; 1 for a run with too few steps to smooth."""
    return 1 if steps < FEWEST_SMOOTHED else max(3, 2 * int(SMOOTHED_SHARE * steps / 2) + 1)


def _line(name: str, steps: pl.DataFrame, color: int, raw: bool = False) -> Series:
    keep = np.unique(np.linspace(0, steps.height - 1, min(MOST_POINTS, steps.height)).astype(int))
    table = steps.select("step", "loss")[keep.tolist()]
    kind: Any = "lines+markers" if steps.height < FEWEST_SMOOTHED else "lines"
    return Series(
        name,
        table["step"].to_list(),
        table["loss"].to_list(),
        kind,
        color=color,
        faint=raw,
        in_legend=not raw,
    )


def _validation(run: dict[str, Any], index: int, one: bool, listed: bool) -> Series:
    """In the colour of its run, or in one of its own beside a single run."""
    name, color = ("validation", 1) if one else (f"{run['id']}, validation", index)
    told = run["validation"]
    steps, values = [each["step"] for each in told], [each["loss"] for each in told]
    return Series(name, steps, values, "lines+markers", dashed=True, color=color, in_legend=listed)


def _means(windows: list[int]) -> str:
    low, high = min(windows), max(windows)
    return f"means of {low} steps" if low == high else f"means of {low} to {high} steps"


def _words(runs: Any) -> str:
    told = []
    for run in runs:
        if run["first_loss"] is not None:
            told.append(f"{run['id']} from {digits(run['first_loss'])} to {digits(run['last_loss'])}")
        if run["validation"]:
            told.append(f"{run['id']} validation {digits(run['validation'][-1]['loss'])} at the end")
    return f"Loss against steps: {'; '.join(told)}."
