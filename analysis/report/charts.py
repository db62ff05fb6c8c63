"""The figures of an analysis: one function per section, which returns none if it has no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontrunner.analysis.analyze import titles
from frontrunner.analysis.report.chart import Chart, Limit, Series
from frontrunner.configs.units import share_text

Figures = dict[str, Any]

#: With more runs than this, the curves of a figure cannot be told apart, and colours would repeat.
MOST_RUNS = 8
MOST_BARS = 20
MOST_PARTS = 7
#: Where the seconds of a step go, in the order of the bars.
PARTS = ("computing and bubble", "communication not hidden", "optimizer", "parts not known")


def chosen(runs: Sequence[Figures], most: int = MOST_RUNS) -> Sequence[Figures]:
    """The runs shown in figures: the first ones."""
    return runs[:most]


def not_drawn(runs: Sequence[Figures], most: int = MOST_RUNS) -> list[str]:
    """A note on the runs that a figure leaves out, if there are any."""
    return [f"Shows the first {most} of {len(runs):,} runs."] if len(runs) > most else []


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
        "all devices",
        [
            Series("measured", devices, speeds),
            Series("ideal", whole, [base * size for size in whole], "lines", dashed=True),
            *_ahead(devices, speeds, ahead, fitted),
        ],
        f"Tokens per second against devices, {title}: {_largest(points)}.",
        y_kind="tokens",
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
        "efficiency",
        [
            Series(
                "measured", devices, values, low=[low for low, _ in bounds], high=[high for _, high in bounds]
            ),
            Series("ideal", whole, [1.0] * len(whole), "lines", dashed=True),
            *_ahead(devices, values, ahead, [each["efficiency"] for each in ahead]),
        ],
        f"Efficiency against devices, {title}: {_largest(points)}. Bars are 95 % intervals.",
        y_kind="share",
        log_x=True,
        y_from_zero=True,
    )


def _largest(points: Sequence[Figures]) -> str:
    return f"efficiency {share_text(points[-1]['efficiency'])} at {points[-1]['devices']} devices"


def _ahead(
    devices: list[int], values: list[float], ahead: list[Figures], fitted: list[float]
) -> list[Series]:
    """The fit's next doublings, starting at the largest run."""
    if not ahead:
        return []
    x = [devices[-1], *(each["devices"] for each in ahead)]
    return [Series("fit, next doublings", x, [values[-1], *fitted], dashed=True)]


def speed(order: Sequence[Figures]) -> list[Chart]:
    """Tokens/s of the runs in ``order``, measured and planned; none for a single run."""
    runs = [run for run in order if run["tokens_per_s_per_device"]]
    if len(runs) < 2:
        return []
    shown = chosen(runs, MOST_BARS)
    names = [run["id"] for run in shown]
    planned = [(run["predicted"] or {}).get("tokens_per_s_per_device") for run in shown]
    measured = [run["tokens_per_s_per_device"] for run in shown]
    return [
        Chart(
            "tokens",
            "Speed of a device",
            "",
            "tokens/s",
            [Series("measured", names, measured, "bar"), Series("planned", names, planned, "bar")],
            f"Tokens per second and device, the fastest run first: {names[0]} is "
            f"{measured[0] / measured[-1]:.3g} times as fast as {names[-1]}.",
            y_kind="tokens",
            notes=not_drawn(runs, MOST_BARS),
        )
    ]


def breakdown(answer: Figures) -> list[Chart]:
    """Where a step's time goes, measured and planned, and one rank's calls if a log has them."""
    bars: dict[str, list[float | None]] = {part: [] for part in PARTS}
    names: list[str] = []
    for run in chosen(answer["runs"]):
        planned = {each["part"]: each["predicted_s"] for each in (run["comparison"] or {}).get("parts", [])}
        known = run["parts_s"] or ({"parts not known": run["step_time_s"]} if planned else {})
        for label, parts in (("measured", known), ("planned", planned)):
            if parts:
                names.append(f"{run['id']}\n{label}" if len(answer["runs"]) > 1 else label)
                for part in PARTS:
                    bars[part].append(parts.get(part))
    found = []
    if names:
        found.append(
            Chart(
                "breakdown",
                "Step time by part",
                "",
                "time of a step",
                [Series(part, names, values, "bar") for part, values in bars.items()],
                "Seconds per step, split into computing and pipeline bubble, communication that is not "
                "hidden, and the optimizer: measured (if the log says so) and planned.",
                y_kind="seconds",
                stacked=True,
                notes=not_drawn(answer["runs"]),
            )
        )
    return found + _operations(answer)


def _operations(answer: Figures) -> list[Chart]:
    runs = [run for run in answer["runs"] if run["communication"]["operations"]]
    if not runs:
        return []
    shown = chosen(runs)
    told = [
        {each["operation"]: each["seconds_per_step"] for each in run["communication"]["operations"]}
        for run in shown
    ]
    totals: dict[str, float] = {}
    for name, seconds in (pair for each in told for pair in each.items()):
        totals[name] = totals.get(name, 0.0) + seconds
    ranked = sorted(totals, key=lambda name: -totals[name])
    kept, rest = ranked[:MOST_PARTS], ranked[MOST_PARTS:]
    names = [run["id"] for run in shown]
    series = [Series(name, names, [each.get(name) for each in told], "bar") for name in kept]
    if rest:
        others: list[float | None] = [sum(each.get(name, 0.0) for name in rest) for each in told]
        series.append(Series("all other calls", names, others, "bar"))
    return [
        Chart(
            "operations",
            "Communication calls of one rank",
            "",
            "time of a step",
            series,
            "Seconds per step that one rank spends in each kind of call, from the log. Sends and receives "
            "include waiting for other stages.",
            y_kind="seconds",
            stacked=True,
            notes=["Sends and receives include waiting for other stages.", *not_drawn(runs)],
        )
    ]


def memory(answer: Figures) -> list[Chart]:
    """Peak memory by stage, or of the run, compared with the memory of a device."""
    runs = [run for run in answer["runs"] if run["memory_bytes"]]
    staged = [run for run in runs if len(run["memory_by_stage"]) > 1]
    plain = [run for run in runs if len(run["memory_by_stage"]) < 2]
    return [*([_staged(staged)] if staged else []), *([_whole(plain)] if plain else [])]


def _staged(runs: Sequence[Figures]) -> Chart:
    shown = chosen(runs)
    series = [
        Series(
            run["id"],
            [each["stage"] for each in run["memory_by_stage"]],
            [each["peak_bytes"] for each in run["memory_by_stage"]],
        )
        for run in shown
    ]
    return Chart(
        "memory-stages",
        "Peak memory by pipeline stage",
        "stage",
        "memory of a device",
        series,
        "Peak memory of tensors on any device of each stage, and the memory of a device.",
        y_kind="bytes",
        y_from_zero=True,
        limits=_capacities(shown),
        notes=not_drawn(runs),
    )


def _whole(runs: Sequence[Figures]) -> Chart:
    shown = chosen(runs, MOST_BARS)
    names = [run["id"] for run in shown]
    planned = [(run["predicted"] or {}).get("peak_memory_bytes_per_device") for run in shown]
    return Chart(
        "memory",
        "Peak memory of a device",
        "",
        "memory",
        [
            Series("measured", names, [run["memory_bytes"] for run in shown], "bar"),
            Series("planned", names, planned, "bar"),
        ],
        "Peak memory of tensors on any device of each run, and the memory of a device.",
        y_kind="bytes",
        limits=_capacities(shown),
        notes=not_drawn(runs, MOST_BARS),
    )


def _capacities(runs: Sequence[Figures]) -> list[Limit]:
    """One line per memory size, labelled with the machines that have it."""
    machines: dict[int, list[str]] = {}
    for run in runs:
        if run["memory_capacity_bytes"]:
            machines.setdefault(run["memory_capacity_bytes"], []).append(run["machine"])
    return [Limit(f"a device of {' or '.join(dict.fromkeys(each))}", size) for size, each in machines.items()]
