"""The figures that need the planner: the roofline, and planned against measured step times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.charts import MOST_RUNS, TERA, Figures, chosen


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
                "TFLOP/s",
                [
                    Series(
                        "peak and memory bandwidth",
                        x,
                        [min(peak or 1e30, bandwidth * i) / TERA for i in x],
                        "lines",
                    ),
                    Series(
                        "best measured matrix product",
                        x,
                        [min(best, bandwidth * i) / TERA for i in x],
                        "lines",
                        dashed=True,
                    ),
                    *_kernels(members),
                ],
                "FLOPs per byte of memory traffic against the planner's rate, for matrix products, attention "
                "and the optimizer, below the device's peak and memory bandwidth.",
                log_x=True,
                log_y=True,
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
            [point["flops_per_s"] / TERA for point, _ in each],
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
    if not runs:
        return []
    measured = [run["step_time_s"] for run in runs]
    ends = [min(measured) * 0.8, max(measured) * 1.25]
    return [
        Chart(
            "predicted",
            "Step time, planned against measured",
            "measured seconds",
            "planned seconds",
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
            "Planned against measured seconds per step: "
            + "; ".join(
                f"{run['id']} {run['comparison']['step_time_error_pct']:+.1f} %" for run in runs[:MOST_RUNS]
            )
            + ".",
            log_x=True,
            log_y=True,
        )
    ]
