"""The figures that need the planner: the roofline, and planned against measured step times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.charts import MOST_RUNS, Figures, chosen, not_drawn
from frontrunner.configs.units import change_text

#: The bars of measured and planned times show fewer runs with their names.
FEWEST_POINTS = MOST_RUNS + 1


def roofline(answer: Figures) -> list[Chart]:
    """One figure per kind of device: ceilings, the kernels of each run, and whole steps."""
    runs = [run for run in chosen(answer["runs"]) if (run["predicted"] or {}).get("roofline")]
    found = []
    for index, machine in enumerate(dict.fromkeys(run["machine"] for run in runs), 1):
        members = [run for run in runs if run["machine"] == machine]
        roof = members[0]["predicted"]["roofline"]
        peak, bandwidth, best = (
            roof[key]
            for key in ("peak_flops_per_s", "memory_bandwidth_bytes_per_s", "best_product_flops_per_s")
        )
        x = [float(value) for value in np.geomspace(0.1, 1e4, 61)]
        found.append(
            Chart(
                f"roofline-{index}",
                f"Roofline of a device of {machine}",
                "FLOPs per byte of memory traffic",
                "rate of a device",
                [
                    Series(
                        "peak and memory bandwidth",
                        x,
                        [min(peak or 1e30, bandwidth * i) for i in x],
                        "lines",
                    ),
                    Series(
                        "best measured matrix product",
                        x,
                        [min(best, bandwidth * i) for i in x],
                        "lines",
                        dashed=True,
                    ),
                    *_kernels(members),
                ],
                "FLOPs per byte of memory traffic against the planner's rate, for matrix products, attention "
                "and the optimizer, below the device's peak and memory bandwidth.",
                y_kind="flops",
                log_x=True,
                log_y=True,
                notes=not_drawn(answer["runs"]),
            )
        )
    return found


def _kernels(runs: Sequence[Figures]) -> list[Series]:
    """One set of points per kernel, with one point per run."""
    points: dict[str, list[tuple[Figures, str]]] = {}
    for run in runs:
        for point in run["predicted"]["roofline"]["points"]:
            points.setdefault(point["kernel"], []).append((point, run["id"]))
    return [
        Series(
            name,
            [point["flops_per_byte"] for point, _ in each],
            [point["flops_per_s"] for point, _ in each],
            "markers",
            labels=[run for _, run in each],
        )
        for name, each in points.items()
    ]


def predicted(answer: Figures) -> list[Chart]:
    """Planned against measured step times."""
    runs = [
        run
        for run in answer["runs"][:200]
        if run["predicted"] and run["predicted"]["step_time_s"] and run["step_time_s"]
    ]
    if len(runs) < FEWEST_POINTS:
        return []
    measured = [run["step_time_s"] for run in runs]
    ends = [min(measured) * 0.8, max(measured) * 1.25]
    return [
        Chart(
            "predicted",
            "Step time, planned against measured",
            "measured",
            "planned",
            [
                Series(
                    "runs",
                    measured,
                    [run["predicted"]["step_time_s"] for run in runs],
                    "markers",
                    labels=[run["id"] for run in runs],
                ),
                Series("equal", ends, ends, "lines", dashed=True),
            ],
            "Measured against planned seconds per step: "
            + "; ".join(
                f"{run['id']} {change_text(run['comparison']['step_time_against_plan_pct'])}"
                for run in runs[:MOST_RUNS]
            )
            + ".",
            x_kind="seconds",
            y_kind="seconds",
            log_x=True,
            log_y=True,
        )
    ]
