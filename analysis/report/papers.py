"""Writes the same figures as files for papers: PNG and SVG, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report.chart import (
    Chart,
    Series,
    Value,
    bar_ends,
    colors,
    names,
    one_line,
    shortened,
    titled,
    unit_x,
    unit_y,
    visible,
)
from frontrunner.analysis.report.escape import plain
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
            if not visible(chart):
                continue
            figure = Figure(figsize=(5.5, _height(chart)), layout="constrained")
            _draw(figure.subplots(), chart)
            figure.legend(loc="outside lower center", ncols=2, fontsize=7)
            for ending in ("png", "svg"):
                path = folder / f"{chart.id}.{ending}"
                figure.savefig(path, dpi=200, metadata={"Date": None} if ending == "svg" else None)
                outputs.append(path)
    return outputs


def _draw(axes: Any, chart: Chart) -> None:
    shown = visible(chart)
    (name_x, _), (name_y, size) = unit_x(chart), unit_y(chart)
    axes.set_title(chart.title, fontsize=9, wrap=True)
    for limit in chart.limits:
        across = axes.axvline if chart.bars else axes.axhline
        across(limit.value / size, color="#a3202f", linestyle=":", label=_short(limit.name))
    if chart.bars:
        _bars(axes, chart, shown, size)
        axes.set_xlabel(titled(chart.y_title, name_y))
        return
    for series, color in zip(shown, colors(shown), strict=True):
        _line(axes, chart, series, color)
    axes.set_xlabel(titled(chart.x_title, name_x))
    axes.set_ylabel(titled(chart.y_title, name_y))
    _scales(axes, chart)
    if chart.y_from_zero:
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _scales(axes: Any, chart: Chart) -> None:
    from matplotlib.ticker import NullFormatter

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


def _line(axes: Any, chart: Chart, series: Series, color: int) -> None:
    (_, size_x), (_, size) = unit_x(chart), unit_y(chart)
    style: dict[str, Any] = {
        "color": COLORS[color % len(COLORS)],
        "label": "_" if series.faint else _short(series.name),
        "linestyle": "--" if series.dashed else "-",
    }
    if series.faint:
        style |= {"alpha": 0.35, "linewidth": 0.7}
    if series.kind == "markers":
        style["linestyle"] = "none"
    if "markers" in series.kind:
        style |= {"marker": MARKERS[color % len(MARKERS)]}
    x = [value / size_x if isinstance(value, int | float) else value for value in series.x]
    y = _scaled(series.y, size)
    if series.low:
        errors = [
            [max(0.0, b - a) for a, b in zip(_scaled(series.low, size), y, strict=True)],
            [max(0.0, b - a) for a, b in zip(y, _scaled(series.high, size), strict=True)],
        ]
        axes.errorbar(x, y, yerr=errors, capsize=3, **style)
    else:
        axes.plot(x, y, **style)


def _scaled(values: Sequence[Value], size: float) -> list[float]:
    return [float("nan") if value is None else value / size for value in values]


def _bars(axes: Any, chart: Chart, shown: Sequence[Series], size: float) -> None:
    """Bars on their side, the first name at the top."""
    rows = names(chart)
    starts = [0.0] * len(rows)
    width = 0.75 if chart.stacked else 0.75 / max(1, len(shown))
    for number, (series, color) in enumerate(zip(shown, colors(shown), strict=True)):
        lengths = [0.0] * len(rows)
        for name, value in zip(series.x, series.y, strict=True):
            lengths[rows.index(str(name))] = (value or 0.0) / size
        shift = 0.0 if chart.stacked else (number - (len(shown) - 1) / 2) * width
        places = [index + shift for index in range(len(rows))]
        style = {"color": COLORS[color % len(COLORS)], "label": _short(series.name)}
        axes.barh(places, lengths, width, left=starts if chart.stacked else 0.0, **style)
        starts = [start + length for start, length in zip(starts, lengths, strict=True)]
    axes.set_yticks(range(len(rows)), [_short(one_line(name)) for name in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.05 * bar_ends(chart) / size)


def _short(name: str) -> str:
    """A short name. A leading underscore would hide it from the legend."""
    return shortened(plain(name), LONGEST_NAME).removeprefix("_")


def _height(chart: Chart) -> float:
    """Height in inches: of a text column's figure, or what its bars need."""
    return max(2.2, 1.4 + 0.24 * len(names(chart)) * (1 if chart.stacked else 1.5)) if chart.bars else 3.6


def _minor(value: float, _: int) -> str:
    """Label 2 and 5 between powers of ten, for axes that span few powers."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _ticks_of_devices(axes: Any, chart: Chart) -> None:
    """Use powers of two for device counts, not powers of ten."""
    if chart.x_title == "devices":
        sizes = sorted({x for series in chart.series for x in series.x if isinstance(x, int | float)})
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.xaxis.minorticks_off()
