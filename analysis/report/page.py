"""The report: one HTML file with tables, interactive figures, and the numbers of each figure as a table.

The page loads nothing from elsewhere; a content security policy enforces this.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.report.chart import Chart, Series, one_line, value_text, visible
from frontrunner.analysis.report.drawing import drawing, height
from frontrunner.analysis.report.escape import escape, plain, script_json
from frontrunner.analysis.report.sections import sections
from frontrunner.analysis.report.table import UNKNOWN, Remarks, Section, Table, Tile
from frontrunner.configs.units import count_text

#: With more runs than this, the page does not include the object of --json.
MOST_EMBEDDED = 500
#: More remarks than this are folded away.
MOST_REMARKS = 8
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_ICON = "data:,"


def write(found: Analysis, path: Path) -> None:
    """Write the page."""
    path.write_text("".join(page(found)), encoding="utf-8")


def page(found: Analysis) -> Iterator[str]:
    """The page, piece by piece. Needs plotly: the page includes its script."""
    embedded = found.answer if len(found.answer["runs"]) <= MOST_EMBEDDED else None
    yield from whole(_title(found), _what(found), sections(found), embedded, "analyze", _flagged(found))


def whole(
    title: str,
    note: str,
    parts: list[Section],
    embedded: dict[str, Any] | None,
    command: str,
    link: str = "",
) -> Iterator[str]:
    """A page of sections, piece by piece: ``note`` says what it shows, ``link`` is HTML that follows it.

    ``embedded`` is the object that the sections are made from; ``command`` is who writes the page.
    """
    from plotly.offline import get_plotlyjs

    style, script = (_resource(name) for name in ("page.css", "page.js"))
    yield "<!DOCTYPE html>\n"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<link rel="icon" href="{_ICON}">'
    yield f"<title>{escape(title)}</title><style>{style}</style></head><body>"
    yield '<a class="skip" href="#main">Skip to the figures</a>'
    yield from _head(title, f"{escape(note)}{link}", parts)
    yield '<main id="main">'
    for section in parts:
        yield from _section(section)
    yield f"</main><footer><p>Written by frontrunner {escape(command)}.</p></footer>"
    drawings = {chart.id: drawing(chart) for part in parts for chart in part.charts if visible(chart)}
    yield f'<script type="application/json" id="charts">{script_json(drawings)}</script>'
    if embedded is not None:
        yield f'<script type="application/json" id="data">{script_json(embedded)}</script>'
    yield f"<script>{get_plotlyjs()}</script><script>{script}</script></body></html>\n"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _title(found: Analysis) -> str:
    runs = found.answer["runs"]
    return plain(runs[0]["id"]) if len(runs) == 1 else f"Analysis of {len(runs):,} runs"


def _head(title: str, note: str, parts: list[Section]) -> Iterator[str]:
    yield '<header><button type="button" id="theme" aria-pressed="false">Dark</button>'
    yield f'<div><h1>{escape(title)}</h1><p class="note">{note}</p></div></header>'
    yield '<nav aria-label="Sections"><ul>'
    yield from (f'<li><a href="#{part.id}">{escape(part.title)}</a></li>' for part in parts)
    yield "</ul></nav>"


def _flagged(found: Analysis) -> str:
    """A link to the warnings, if there are any."""
    runs = found.answer["runs"]
    flagged = sum(1 for run in runs if run["warnings"])
    some = f"{flagged:,} of {len(runs):,} runs have" if len(runs) > 1 else "It has"
    return f'; <a href="#warnings">{some} warnings</a>' if flagged else ""


def _what(found: Analysis) -> str:
    """What was analysed, in one line."""
    answer = found.answer
    runs = answer["runs"]
    steps = f"{answer['steps']:,} steps"
    count = answer["lost_lines"]
    lost = f", {count:,} {'line' if count == 1 else 'lines'} could not be read" if count else ""
    if len(runs) > 1:
        return f"{steps} of {len(runs):,} runs{lost}"
    run = runs[0]
    model = f"{run['model']['name']} on " if run["model"] and run["format"] == "records" else ""
    devices = "devices" if run["devices"] != 1 else "device"
    size = f"{count_text(run['devices'])} {devices}" if run["devices"] else "an unknown number of devices"
    machine = f" of {run['machine']}" if run["machine"] else ""
    return f"{model}{size}{machine}; {run['format']}; {steps}{lost}"


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.id}" aria-labelledby="{section.id}-title">'
    yield f'<h2 id="{section.id}-title">{escape(section.title)}</h2>'
    if section.tiles:
        yield '<dl class="tiles">'
        yield from (_tile(tile) for tile in section.tiles)
        yield "</dl>"
    above = 0 if section.figures_first else 1
    for table in section.tables[:above]:
        yield from _table(table)
    for chart in section.charts:
        if visible(chart):
            yield from _figure(chart)
    for table in section.tables[above:]:
        yield from _table(table)
    yield from (f'<p class="note">{escape(note)}</p>' for note in section.notes)
    for remarks in section.remarks:
        yield from _remarks(remarks)
    yield "</section>"


def _tile(tile: Tile) -> str:
    note = f'<dd class="note">{escape(tile.note)}</dd>' if tile.note else ""
    return f"<div><dt>{escape(tile.name)}</dt><dd>{escape(_unbroken(tile.value))}</dd>{note}</div>"


def _unbroken(text: str) -> str:
    """Keeps each number and its unit on one line."""
    return " to ".join(part.replace(" ", "\u00a0") for part in text.split(" to "))


def _remarks(remarks: Remarks) -> Iterator[str]:
    name = f' id="{remarks.id}"' if remarks.id else ""
    yield f'<div class="remarks{" warning" if remarks.warning else ""}"{name}>'
    yield f"<h3>{escape(remarks.title)}</h3>" if remarks.title else ""
    lines = [
        f"<li>{f'<b>{escape(name)}</b>: ' if name else ''}{escape(text)}</li>" for name, text in remarks.lines
    ]
    yield f"<ul>{''.join(lines[:MOST_REMARKS])}</ul>"
    if rest := lines[MOST_REMARKS:]:
        yield f"<details><summary>{len(rest):,} more</summary><ul>{''.join(rest)}</ul></details>"
    yield "</div>"


def _table(table: Table) -> Iterator[str]:
    yield _scroll(table.caption, f'<p class="caption">{escape(table.caption)}</p>')
    kinds = ["" if number else ' class="text"' for number in table.numbers]
    heads = zip(table.columns, kinds, strict=True)
    yield "<thead><tr>"
    yield from (f'<th scope="col"{kind}>{escape(column)}</th>' for column, kind in heads)
    yield "</tr></thead><tbody>"
    narrow = ' class="narrow"' if table.numbers[0] else ""
    for name, *cells in table.rows:
        yield f'<tr><th scope="row"{narrow}{_key(name.key)}>{escape(name.text)}</th>'
        for cell, kind in zip(cells, kinds[1:], strict=True):
            yield f"<td{kind}{_key(cell.key)}>{escape(cell.text)}</td>"
        yield "</tr>"
    yield "</tbody></table></div></div>"


def _key(key: str) -> str:
    return f' data-key="{escape(key)}"' if key else ""


def _scroll(label: str, caption: str = "") -> str:
    """The start of a table that scrolls on its own if it is too wide, by keyboard too, and says so."""
    return (
        f'<div class="table">{caption}<p class="hint" hidden>Scroll the table sideways for more columns</p>'
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}"><table>'
    )


def _figure(chart: Chart) -> Iterator[str]:
    """The drawing, its legend and description, and its numbers as a table that unfolds."""
    label = escape(chart.description)
    yield f'<figure id="figure-{chart.id}"><figcaption>{escape(chart.title)}</figcaption>'
    yield f'<div class="legend" id="legend-{chart.id}"></div>'
    yield (
        f'<div class="chart" id="chart-{chart.id}" role="img" aria-label="{label}" '
        f'style="height:{height(chart)}px"></div>'
    )
    yield from (f'<p class="note">{escape(note)}</p>' for note in chart.notes)
    yield f"<details><summary>Numbers of this figure</summary><p>{label}</p>"
    yield from _numbers(chart)
    yield "</details></figure>"


def _numbers(chart: Chart) -> Iterator[str]:
    kinds = (' class="text"', ' class="text"' if chart.bars else "", "")
    heads = ("series", chart.x_title or "of", chart.y_title)
    yield _scroll(f"Numbers: {chart.title}") + "<thead><tr>"
    yield from (f'<th scope="col"{kind}>{escape(t)}</th>' for t, kind in zip(heads, kinds, strict=True))
    yield "</tr></thead><tbody>"
    for series in chart.series:
        if not _listed(series):
            continue
        for x, y in zip(series.x, series.y, strict=True):
            told = (
                one_line(value_text(x, chart.x_kind)),
                UNKNOWN if y is None else value_text(y, chart.y_kind),
            )
            cells = (f"<td{kind}>{escape(t)}</td>" for t, kind in zip(told, kinds[1:], strict=True))
            yield f'<tr><th scope="row">{escape(series.name)}</th>{"".join(cells)}</tr>'
    for limit in chart.limits:
        text = value_text(limit.value, chart.y_kind)
        yield f'<tr><th scope="row">{escape(limit.name)}</th><td></td><td>{escape(text)}</td></tr>'
    yield "</tbody></table></div></div>"


def _listed(series: Series) -> bool:
    """Whether its numbers say something: not those of ideals, faint lines, many points or none."""
    return any(y is not None for y in series.y) and not (
        series.faint or len(series.x) > 100 or (series.dashed and series.kind == "lines")
    )
