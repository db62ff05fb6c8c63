"""The report: one HTML file with tables, interactive figures, and the numbers of each figure as a table.

The page loads nothing from elsewhere; a content security policy enforces this. Text from logs is escaped for
HTML, and once more for Plotly, which interprets some tags in labels.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.sections import sections
from frontrunner.analysis.report.table import UNKNOWN, Section, Table

#: With more runs than this, the page does not include the object of --json.
MOST_EMBEDDED = 500
MOST_WARNINGS = 200
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "pentagon", "cross")
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write(found: Analysis, path: Path) -> None:
    """Write the page."""
    path.write_text("".join(page(found)), encoding="utf-8")


def page(found: Analysis) -> Iterator[str]:
    """The page, piece by piece. Needs plotly: the page includes its script."""
    from plotly.offline import get_plotlyjs

    parts = sections(found)
    style, script = (_resource(name) for name in ("page.css", "page.js"))
    yield "<!DOCTYPE html>\n"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(_title(found))}</title><style>{style}</style></head><body>"
    yield '<a class="skip" href="#main">Skip to the figures</a>'
    yield from _head(found, parts)
    yield '<main id="main">'
    yield from _warnings(found)
    for section in parts:
        yield from _section(section)
    yield "</main><footer><p>Written by frontrunner analyze.</p></footer>"
    yield f'<script type="application/json" id="charts">{script_json(_drawings(parts))}</script>'
    if len(found.answer["runs"]) <= MOST_EMBEDDED:
        yield f'<script type="application/json" id="data">{script_json(found.answer)}</script>'
    yield f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>\n"


def escape(text: object) -> str:
    return html.escape(str(text), quote=True)


def script_json(value: Any) -> str:
    """JSON with ``<`` escaped, so that no text in it can close the script element."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026")


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _title(found: Analysis) -> str:
    runs = found.answer["runs"]
    return f"{runs[0]['id']}: analysis" if len(runs) == 1 else f"Analysis of {len(runs):,} runs"


def _head(found: Analysis, parts: list[Section]) -> Iterator[str]:
    answer = found.answer
    flagged = sum(1 for run in answer["runs"] if run["warnings"])
    cards = [
        ("runs", f"{len(answer['runs']):,}"),
        ("steps", f"{answer['steps']:,}"),
        ("scaling groups", str(len(answer["scaling"]))),
        ("runs with warnings", f"{flagged:,}"),
        ("lines lost", f"{answer['lost_lines']:,}"),
    ]
    yield f"<header><h1>{escape(_title(found))}</h1>"
    yield '<button type="button" id="theme" aria-pressed="false">Dark</button></header>'
    yield '<dl class="cards">'
    yield from (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in cards)
    yield '</dl><nav aria-label="Sections"><ul>'
    yield from (f'<li><a href="#{part.id}">{escape(part.title)}</a></li>' for part in parts)
    yield "</ul></nav>"


def _warnings(found: Analysis) -> Iterator[str]:
    told = [(run["id"], text) for run in found.answer["runs"] for text in run["warnings"]]
    told += [(each["path"], f"not read: {each['reason']}") for each in found.answer["unread"]]
    if not told:
        return
    yield '<section id="warnings" aria-labelledby="warnings-title"><h2 id="warnings-title">Warnings</h2><ul>'
    yield from (f"<li><b>{escape(name)}</b>: {escape(text)}</li>" for name, text in told[:MOST_WARNINGS])
    if len(told) > MOST_WARNINGS:
        yield f"<li>and {len(told) - MOST_WARNINGS:,} more</li>"
    yield "</ul></section>"


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.id}" aria-labelledby="{section.id}-title">'
    yield f'<h2 id="{section.id}-title">{escape(section.title)}</h2>'
    for chart in section.charts:
        yield from _figure(chart)
    for table in section.tables:
        yield from _table(table)
    yield from (f'<p class="note">{escape(note)}</p>' for note in section.notes)
    yield "</section>"


def _table(table: Table) -> Iterator[str]:
    yield f"{_scroll(table.caption)}<caption>{escape(table.caption)}</caption>"
    yield (
        "<thead><tr>"
        + "".join(f'<th scope="col">{escape(c)}</th>' for c in table.columns)
        + "</tr></thead><tbody>"
    )
    for name, *cells in table.rows:
        yield f'<tr><th scope="row" data-key="{escape(name.key)}">{escape(name.text)}</th>'
        yield from (f'<td data-key="{escape(cell.key)}">{escape(cell.text)}</td>' for cell in cells)
        yield "</tr>"
    yield "</tbody></table></div>"


def _scroll(label: str) -> str:
    """The start of a table that scrolls on its own if it is too wide, by keyboard too."""
    return f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table>'


def _figure(chart: Chart) -> Iterator[str]:
    """The drawing, its description, and its numbers as a table that unfolds."""
    yield f'<figure id="figure-{chart.id}"><figcaption>{escape(chart.title)}</figcaption>'
    label = escape(chart.description)
    yield f'<div class="chart" id="chart-{chart.id}" role="img" aria-label="{label}"></div>'
    yield f"<details><summary>Numbers of this figure</summary><p>{label}</p>"
    yield _scroll(f"Numbers: {chart.title}")
    yield f'<thead><tr><th scope="col">series</th><th scope="col">{escape(chart.x_title or "of")}</th>'
    yield f'<th scope="col">{escape(chart.y_title)}</th></tr></thead><tbody>'
    for series in chart.series:
        if len(series.x) > 100 or (series.dashed and series.kind == "lines"):
            continue
        for x, y in zip(series.x, series.y, strict=True):
            cells = "".join(f"<td>{_number(value)}</td>" for value in (x, y))
            yield f'<tr><th scope="row">{escape(series.name)}</th>{cells}</tr>'
    yield "</tbody></table></div></details></figure>"


def _number(value: object) -> str:
    if value is None:
        return UNKNOWN
    return escape(f"{value:,.6g}" if isinstance(value, int | float) else value)


def _drawings(parts: list[Section]) -> dict[str, Any]:
    """What Plotly draws, keyed by figure id. The page adds the colours, since it knows the theme."""
    return {chart.id: _drawing(chart) for part in parts for chart in part.charts}


def _drawing(chart: Chart) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": escape(chart.x_title)}, "type": "log" if chart.log_x else "-"},
        "yaxis": {"title": {"text": escape(chart.y_title)}, "type": "log" if chart.log_y else "-"},
        "barmode": "stack" if chart.stacked else "group",
        "showlegend": True,
    }
    if chart.x_title == "devices":
        sizes = sorted({x for series in chart.series for x in series.x if isinstance(x, int | float)})
        layout["xaxis"] |= {"tickvals": sizes, "ticktext": [f"{x:,}" for x in sizes]}
    if chart.y_from_zero:
        layout["yaxis"]["rangemode"] = "tozero"
    traces = [_trace(series, index) for index, series in enumerate(chart.series)]
    return {"data": traces, "layout": layout}


def _trace(series: Series, index: int) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "name": escape(series.name),
        "x": [escape(x) if isinstance(x, str) else x for x in series.x],
        "y": list(series.y),
    }
    if series.kind == "bar":
        return trace | {"type": "bar"}
    trace |= {"type": "scatter", "mode": series.kind, "marker": {"symbol": _SYMBOLS[index % 8], "size": 8}}
    trace["line"] = {"dash": "dash" if series.dashed else "solid", "width": 2}
    if series.labels:
        trace |= {
            "text": [escape(text) for text in series.labels],
            "hovertemplate": "%{text}<br>%{x:.4g}, %{y:.4g}",
        }
    if series.low:
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [_beyond(high, y) for high, y in zip(series.high, series.y, strict=True)],
            "arrayminus": [_beyond(y, low) for low, y in zip(series.low, series.y, strict=True)],
        }
    return trace


def _beyond(larger: float | None, smaller: float | None) -> float:
    return max(0.0, larger - smaller) if larger is not None and smaller is not None else 0.0
