"""What Plotly draws, as JSON. The page adds the colours, since it knows the theme.

Text is escaped once more than HTML needs, because Plotly interprets some tags and entities in labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from frontrunner.analysis.report.chart import (
    Chart,
    Limit,
    Series,
    Value,
    bar_ends,
    colors,
    log_ticks,
    names,
    one_line,
    shortened,
    titled,
    unit_x,
    unit_y,
    value_text,
    visible,
    without_shared_start,
)
from frontrunner.analysis.report.escape import escape, plain

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "pentagon", "cross")
#: Letters of a bar's name on a wide and on a narrow page.
WIDE_NAME, NARROW_NAME = 34, 20
#: Height in pixels: of a figure of lines, and of a figure of bars without and with each bar.
LINES_HEIGHT, BARS_HEIGHT, BAR_HEIGHT = 400, 90, 34
#: Space beyond the longest bar, for its value.
HEADROOM = 1.2


def drawing(chart: Chart) -> dict[str, Any]:
    """Traces and layout for Plotly, the colour of each trace, and the legend."""
    shown = visible(chart)
    numbers = colors(shown)
    make = _bar if chart.bars else _line
    limits = [
        {"name": _told(limit.name, limit.value, chart), "dash": "dot", "limit": True}
        for limit in chart.limits
    ]
    legend = [
        {"name": plain(series.name), "trace": index} | _mark(series, numbers[index])
        for index, series in enumerate(shown)
        if series.in_legend
    ]
    return {
        "data": [make(chart, series, numbers[index]) for index, series in enumerate(shown)],
        "layout": _bar_layout(chart) if chart.bars else _line_layout(chart, shown),
        "colors": numbers,
        "faint": [series.faint for series in shown],
        "legend": [*legend, *limits],
        "narrow": _labels(chart, NARROW_NAME) if chart.bars else None,
    }


def _told(name: str, value: float, chart: Chart) -> str:
    return f"{plain(name)}: {value_text(value, chart.y_kind)}"


def height(chart: Chart) -> int:
    """Height of a figure in pixels."""
    if not chart.bars:
        return LINES_HEIGHT
    side_by_side = 1 if chart.stacked else len(visible(chart))
    return round(BARS_HEIGHT + BAR_HEIGHT * len(names(chart)) * (1 + 0.5 * (side_by_side - 1)))


def _mark(series: Series, color: int) -> dict[str, Any]:
    """How the legend draws a series."""
    if series.kind == "bar":
        return {"bar": True}
    found: dict[str, Any] = {"symbol": SYMBOLS[color % len(SYMBOLS)]} if "markers" in series.kind else {}
    return found | ({} if series.kind == "markers" else {"dash": "dash" if series.dashed else "solid"})


def _scaled(values: Sequence[Value | str], size: float) -> list[Any]:
    return [value / size if isinstance(value, int | float) and size != 1 else value for value in values]


def _line(chart: Chart, series: Series, color: int) -> dict[str, Any]:
    (_, size_x), (_, size_y) = unit_x(chart), unit_y(chart)
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": escape(series.name),
        "x": _scaled(series.x, size_x),
        "y": _scaled(series.y, size_y),
        "mode": series.kind,
        "marker": {"symbol": SYMBOLS[color % len(SYMBOLS)], "size": 8},
        "line": {"dash": "dash" if series.dashed else "solid", "width": 1 if series.faint else 2},
        "hovertext": _hover(chart, series),
        "hoverinfo": "skip" if series.faint else "text",
    }
    if series.low:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_beyond(high, y) / size_y for high, y in zip(series.high, series.y, strict=True)],
            "arrayminus": [_beyond(y, low) / size_y for low, y in zip(series.low, series.y, strict=True)],
        }
    return trace


def _hover(chart: Chart, series: Series) -> list[str]:
    heads = series.labels or [series.name] * len(series.x)
    x_title = f"{chart.x_title} " if chart.x_title else ""
    return [
        f"<b>{escape(head)}</b><br>{escape(x_title + value_text(x, chart.x_kind))}"
        f"<br>{escape(chart.y_title)} {escape(value_text(y, chart.y_kind))}"
        for head, x, y in zip(heads, series.x, series.y, strict=True)
    ]


def _beyond(larger: Value, smaller: Value) -> float:
    return max(0.0, larger - smaller) if larger is not None and smaller is not None else 0.0


def _bar(chart: Chart, series: Series, color: int) -> dict[str, Any]:
    """Bars at the places of their names, so that two names may look the same once they are shortened.

    ``meta`` of stacked bars is their share of the figure's width: short ones have no room for text.
    """
    _, size = unit_y(chart)
    end = bar_ends(chart) / size
    place = {name: index for index, name in enumerate(names(chart))}
    texts = [value_text(value, chart.y_kind) if value else "" for value in series.y]
    return {
        "type": "bar",
        "orientation": "h",
        "name": escape(series.name),
        "y": [place[str(name)] for name in series.x],
        "x": _scaled(series.y, size),
        "text": texts,
        "meta": [(value or 0.0) / size / end for value in series.y] if chart.stacked else None,
        "textposition": "inside" if chart.stacked else "auto",
        "insidetextanchor": "middle" if chart.stacked else "end",
        "constraintext": "none",
        "textangle": 0,
        "cliponaxis": False,
        "hovertext": [
            f"<b>{escape(one_line(str(name)))}</b><br>{escape(series.name)} {text}"
            for name, text in zip(series.x, texts, strict=True)
        ],
        "hoverinfo": "text",
    }


def _labels(chart: Chart, most: int) -> list[str]:
    """The names of the bars in at most two lines; too long ones lose what all have in common first."""
    pairs = [name.rsplit("\n", 1) for name in names(chart)]
    heads = [pair[0] for pair in pairs]
    if max(map(len, heads)) > most:
        heads = without_shared_start(heads, most)
    lines = [[shortened(head, most), *pair[1:]] for head, pair in zip(heads, pairs, strict=True)]
    return ["<br>".join(map(escape, each)) for each in lines]


def _bar_layout(chart: Chart) -> dict[str, Any]:
    unit, size = unit_y(chart)
    count = len(names(chart))
    end = bar_ends(chart) / size
    return {
        "xaxis": {
            "title": {"text": escape(titled(chart.y_title, unit))},
            "range": [0, end * (1.06 if chart.stacked else HEADROOM)],
            "separatethousands": True,
            "exponentformat": "none",
        },
        "yaxis": {
            "tickvals": list(range(count)),
            "ticktext": _labels(chart, WIDE_NAME),
            "range": [count - 0.5, -0.5],
            "showgrid": False,
            "zeroline": False,
        },
        "barmode": "stack" if chart.stacked else "group",
        "bargap": 0.25,
        "showlegend": False,
        "shapes": [_limit(limit, size, "x") for limit in chart.limits],
    }


def _line_layout(chart: Chart, shown: Sequence[Series]) -> dict[str, Any]:
    (unit_of_x, size_x), (unit, size) = unit_x(chart), unit_y(chart)
    layout: dict[str, Any] = {
        "xaxis": _axis(titled(chart.x_title, unit_of_x), chart.log_x),
        "yaxis": _axis(titled(chart.y_title, unit), chart.log_y),
        "showlegend": False,
        "hovermode": "closest",
        "shapes": [_limit(limit, size, "y") for limit in chart.limits],
    }
    xs = [x for series in shown for x in series.x if isinstance(x, int | float)]
    ys = [y for series in shown for y in series.y if y is not None]
    if chart.log_x:
        layout["xaxis"] |= _ticks(log_ticks(x / size_x for x in xs))
    if chart.log_y:
        layout["yaxis"] |= _ticks(log_ticks(y / size for y in ys))
    if chart.x_title == "devices":
        layout["xaxis"] |= _ticks(sorted(set(xs)))
    elif xs and all(isinstance(x, int) for x in xs) and max(xs) - min(xs) < 12:
        layout["xaxis"] |= {"dtick": 1}
    if chart.y_from_zero and ys:
        top = max([*ys, *(limit.value for limit in chart.limits)]) / size
        layout["yaxis"]["range"] = [0, 1.08 * top]
    return layout


def _axis(title: str, log: bool) -> dict[str, Any]:
    kind = "log" if log else "linear"
    return {
        "title": {"text": escape(title)},
        "type": kind,
        "separatethousands": True,
        "exponentformat": "none",
    }


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [f"{value:,.12g}" for value in values]}


def _limit(limit: Limit, size: float, axis: str) -> dict[str, Any]:
    """A line across the figure at a value of ``axis``."""
    across = "y" if axis == "x" else "x"
    value = limit.value / size
    return {
        "type": "line",
        f"{axis}0": value,
        f"{axis}1": value,
        f"{across}0": 0,
        f"{across}1": 1,
        f"{across}ref": "paper",
        "line": {"dash": "dot", "width": 2},
        "name": escape(limit.name),
    }
