"""The figures of an analysis: one function per section, which returns none if it has no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from frontrunner.analysis.analyze import Analysis, titles
from frontrunner.analysis.report.chart import Chart, Series

Figures = dict[str, Any]

#: With more runs than this, the curves of a figure cannot be told apart.
MOST_RUNS = 12
MOST_POINTS = 400
GIB, TERA = 2**30, 1e12


def chosen(runs: Sequence[Figures]) -> Sequence[Figures]:
    """The runs shown in figures: the first ones."""
    return runs[:MOST_RUNS]


def scaling(answer: Figures) -> list[Chart]:
    """Two figures per group: throughput (with ideal, fit and next doublings) and efficiency."""
    pairs = enumerate(zip(titles(answer), answer["scaling"], strict=True), 1)
    return [
        chart
        for index, (title, group) in pairs
        for chart in (_throughput(index, title, group), _efficiency(index, title, group))
    ]


def _throughput(index: int, title: str, group: Figures) -> Chart:
    points, ahead = group["points"], group["predictions"]
    devices = [point["devices"] for point in points]
    whole = [*devices, *(each["devices"] for each in ahead)]
    base = points[0]["tokens_per_s"] / devices[0]
    speeds = [point["tokens_per_s"] for point in points]
    fitted = [each["tokens_per_s_per_device"] * each["devices"] for each in ahead]
    return Chart(
        f"scaling-{index}",
        f"Throughput: {title}",
        "devices",
        "tokens/s on all devices",
        [
            Series("measured", devices, speeds),
            Series("ideal", whole, [base * size for size in whole], "lines", dashed=True),
            *_ahead(devices, speeds, ahead, fitted),
        ],
        f"Tokens per second against devices, {title}: {_largest(points)}.",
        log_x=True,
        log_y=True,
    )


def _efficiency(index: int, title: str, group: Figures) -> Chart:
    points, ahead = group["points"], group["predictions"]
    devices = [point["devices"] for point in points]
    whole = [*devices, *(each["devices"] for each in ahead)]
    values = [point["efficiency"] for point in points]
    bounds = [point["efficiency_interval"] or [1.0, 1.0] for point in points]
    return Chart(
        f"efficiency-{index}",
        f"Efficiency: {title}",
        "devices",
        "efficiency relative to the smallest run",
        [
            Series(
                "measured", devices, values, low=[low for low, _ in bounds], high=[high for _, high in bounds]
            ),
            Series("ideal", whole, [1.0] * len(whole), "lines", dashed=True),
            *_ahead(devices, values, ahead, [each["efficiency"] for each in ahead]),
        ],
        f"Efficiency against devices, {title}: {_largest(points)}. Bars are 95 % intervals.",
        log_x=True,
        y_from_zero=True,
    )


def _largest(points: Sequence[Figures]) -> str:
    return f"efficiency {points[-1]['efficiency']:.1%} at {points[-1]['devices']} devices"


def _ahead(
    devices: list[int], values: list[float], ahead: list[Figures], fitted: list[float]
) -> list[Series]:
    """The fit's next doublings, starting at the largest run."""
    if not ahead:
        return []
    x = [devices[-1], *(each["devices"] for each in ahead)]
    return [Series("fit, next doublings", x, [values[-1], *fitted], dashed=True)]


def breakdown(answer: Figures) -> list[Chart]:
    """Where a step's time goes, measured and planned, and one rank's calls if a log has them."""
    bars: dict[str, list[float | None]] = {}
    names: list[str] = []
    groups = ("computing and bubble", "communication not hidden", "optimizer", "parts not known")
    for run in chosen(answer["runs"]):
        planned = {each["part"]: each["predicted_s"] for each in (run["comparison"] or {}).get("parts", [])}
        known = run["parts_s"] or ({"parts not known": run["step_time_s"]} if planned else {})
        for label, parts in (("measured", known), ("planned", planned)):
            if parts:
                names.append(f"{run['id']}, {label}")
                for part in groups:
                    bars.setdefault(part, []).append(parts.get(part))
    found = []
    if names:
        found.append(
            Chart(
                "breakdown",
                "Step time by part",
                "",
                "seconds per step",
                [Series(part, names, values, "bar") for part, values in bars.items()],
                "Seconds per step, split into computing and pipeline bubble, communication that is not "
                "hidden, and the optimizer: measured (if the log says so) and planned.",
                stacked=True,
            )
        )
    return found + _operations(answer)


def _operations(answer: Figures) -> list[Chart]:
    runs = [run for run in chosen(answer["runs"]) if run["communication"]["operations"]]
    if not runs:
        return []
    told = [{each["operation"]: each for each in run["communication"]["operations"]} for run in runs]
    names = list(dict.fromkeys(name for each in told for name in each))
    series = [
        Series(
            name,
            [run["id"] for run in runs],
            [each[name]["seconds_per_step"] if name in each else None for each in told],
            "bar",
        )
        for name in names
    ]
    return [
        Chart(
            "operations",
            "Communication calls of one rank",
            "",
            "seconds per step",
            series,
            "Seconds per step that one rank spends in each kind of call, from the log. Sends and receives "
            "include waiting for other stages.",
            stacked=True,
        )
    ]


def memory(answer: Figures) -> list[Chart]:
    """Peak memory by stage, or of the run, compared with the memory of a device."""
    runs = [run for run in chosen(answer["runs"]) if run["memory_bytes"]]
    staged = [run for run in runs if run["memory_by_stage"]]
    plain = [run for run in runs if not run["memory_by_stage"]]
    return [*([_staged(staged)] if staged else []), *([_whole(plain)] if plain else [])]


def _staged(runs: Sequence[Figures]) -> Chart:
    stages = sorted({each["stage"] for run in runs for each in run["memory_by_stage"]})
    series = [
        Series(
            run["id"],
            [each["stage"] for each in run["memory_by_stage"]],
            [each["peak_bytes"] / GIB for each in run["memory_by_stage"]],
        )
        for run in runs
    ]
    return Chart(
        "memory-stages",
        "Peak memory by pipeline stage",
        "stage",
        "GiB per device",
        [*series, *_capacities(runs, [stages[0], stages[-1]])],
        "Peak memory of tensors on any device of each stage, and the memory of a device.",
        y_from_zero=True,
    )


def _whole(runs: Sequence[Figures]) -> Chart:
    names = [run["id"] for run in runs]
    peaks = Series("peak", names, [run["memory_bytes"] / GIB for run in runs], "bar")
    return Chart(
        "memory",
        "Peak memory of a device",
        "",
        "GiB per device",
        [peaks, *_capacities(runs, [names[0], names[-1]])],
        "Peak memory of tensors on any device of each run, and the memory of a device.",
        y_from_zero=True,
    )


def _capacities(runs: Sequence[Figures], ends: Sequence[Any]) -> list[Series]:
    """One line per memory size, labelled with the machines that have it."""
    machines: dict[int, list[str]] = {}
    for run in runs:
        if run["memory_capacity_bytes"]:
            machines.setdefault(run["memory_capacity_bytes"], []).append(run["machine"])
    return [
        Series(
            f"a device of {' or '.join(dict.fromkeys(names))}", ends, [size / GIB] * 2, "lines", dashed=True
        )
        for size, names in machines.items()
    ]


def losses(found: Analysis) -> list[Chart]:
    """Training loss by step."""
    runs = chosen(found.answer["runs"])
    series = []
    for index, run in enumerate(runs):
        steps = found.steps.filter((pl.col("run") == index) & pl.col("loss").is_not_null())
        if steps.height:
            keep = np.unique(np.linspace(0, steps.height - 1, min(MOST_POINTS, steps.height)).astype(int))
            table = steps.select("step", "loss")[keep.tolist()]
            kind: Any = "lines+markers" if steps.height < 30 else "lines"
            series.append(Series(run["id"], table["step"].to_list(), table["loss"].to_list(), kind))
    if not series:
        return []
    words = "Training loss against steps: " + "; ".join(
        f"{run['id']} from {run['first_loss']:.4g} to {run['last_loss']:.4g}"
        for run in runs
        if run["first_loss"] is not None
    )
    return [Chart("losses", "Training loss", "step", "loss", series, f"{words}.")]
