"""Writes the same figures as files for papers: PNG and SVG, with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.sections import sections

#: Okabe and Ito's palette, safe for any colour vision, without its yellow, which is too light for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
LONGEST_NAME = 32
STYLE: Any = {
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "frontrunner",
    "text.parse_math": False,
}


def draw(found: Analysis, folder: Path) -> list[Path]:
    """Write every figure of the report into ``folder``; return the files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    outputs = []
    with mpl.rc_context(STYLE):
        for chart in (chart for section in sections(found) for chart in section.charts):
            figure = Figure(figsize=(_width(chart), 3.6), layout="constrained")
            axes = figure.subplots()
            _draw(axes, chart)
            figure.legend(loc="outside lower center", ncols=3, fontsize=7)
            for ending in ("png", "svg"):
                path = folder / f"{chart.id}.{ending}"
                figure.savefig(path, dpi=200, metadata={"Date": None} if ending == "svg" else None)
                outputs.append(path)
    return outputs


def _draw(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import NullFormatter

    bottom: dict[Any, float] = {}
    for index, series in enumerate(chart.series):
        color = COLORS[index % len(COLORS)]
        if series.kind == "bar":
            _bars(axes, chart, series, color, bottom)
        else:
            _line(axes, series, color, MARKERS[index % len(MARKERS)])
    axes.set_title(chart.title, fontsize=9, wrap=True)
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    for axis, scale, is_log in (
        (axes.xaxis, axes.set_xscale, chart.log_x),
        (axes.yaxis, axes.set_yscale, chart.log_y),
    ):
        if is_log:
            scale("log")
            # The default labels are formulas, and names with a dollar sign would be read as formulas too.
            axis.set_major_formatter("{x:g}")
            low, high = axis.get_view_interval()
            axis.set_minor_formatter(_minor if high < 1000 * low else NullFormatter())
    _ticks_of_devices(axes, chart)
    if chart.y_from_zero or bottom:
        axes.set_ylim(0, 1.05 * max([axes.get_ylim()[1], *bottom.values()]))


def _line(axes: Any, series: Series, color: str, marker: str) -> None:
    style = {"color": color, "label": _short(series.name), "linestyle": "--" if series.dashed else "-"}
    if series.kind == "markers":
        style["linestyle"] = "none"
    if "markers" in series.kind:
        style |= {"marker": marker}
    y = [float("nan") if value is None else value for value in series.y]
    if series.low:
        below = [value - (low or 0) for value, low in zip(y, series.low, strict=True)]
        above = [(high or 0) - value for value, high in zip(y, series.high, strict=True)]
        errors = [[max(0.0, value) for value in below], [max(0.0, value) for value in above]]
        axes.errorbar(series.x, y, yerr=errors, capsize=3, **style)
    else:
        axes.plot(series.x, y, **style)


def _bars(axes: Any, chart: Chart, series: Series, color: str, bottom: dict[Any, float]) -> None:
    heights = [value or 0.0 for value in series.y]
    below = [bottom.get(x, 0.0) if chart.stacked else 0.0 for x in series.x]
    axes.bar(list(series.x), heights, bottom=below, color=color, label=_short(series.name), width=0.7)
    for x, height, start in zip(series.x, heights, below, strict=True):
        bottom[x] = start + height
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xticks(range(len(bottom)), [_short(str(name)) for name in bottom])
    for label in axes.get_xticklabels():
        label.set(rotation=25, ha="right", rotation_mode="anchor")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _width(chart: Chart) -> float:
    """Size in inches: one text column, or larger for many bars."""
    return max(5.5, 0.4 * max((len(series.x) for series in chart.series if series.kind == "bar"), default=0))


def _minor(value: float, _: int) -> str:
    """Label 2 and 5 between powers of ten, for axes that span few powers."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _ticks_of_devices(axes: Any, chart: Chart) -> None:
    """Use powers of two for device counts, not powers of ten."""
    if chart.x_title == "devices":
        sizes = sorted({x for series in chart.series for x in series.x if isinstance(x, int | float)})
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.xaxis.minorticks_off()
