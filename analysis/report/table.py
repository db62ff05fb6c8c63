"""Tables and sections of the report. Each cell knows its path in the object of ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from frontrunner.analysis.report.chart import Chart
from frontrunner.configs.units import Kind, change_text, count_text, digits, quantity

Figures = dict[str, Any]
Form = Kind | Literal["text", "count", "change", "gain"]
UNKNOWN = "–"

#: Nobody reads longer tables; --csv writes all rows.
MOST_ROWS = 500


@dataclass(frozen=True)
class Cell:
    """A cell of a table: the text shown, and its dotted path in the object of ``--json``."""

    text: str
    key: str = ""


@dataclass(frozen=True)
class Column:
    """``key`` is below a row's path; ``form`` says how the value is written (``change``: percent,
    signed; ``gain``: a share, signed)."""

    title: str
    key: str
    form: Form = "text"


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell names the row. ``numbers`` says which columns hold numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numbers: Sequence[bool] = ()


@dataclass(frozen=True)
class Tile:
    """One figure that a reader looks for first: its name, its value and what to compare it with."""

    name: str
    value: str
    note: str = ""
    key: str = ""


@dataclass(frozen=True)
class Remarks:
    """A list of remarks under a title; ``warning`` if they say that something is wrong."""

    title: str
    lines: Sequence[tuple[str, str]]
    """A name, which may be empty, and what is said about it."""
    warning: bool = False
    id: str = ""


@dataclass(frozen=True)
class Section:
    """One section of the page: its first table comes before the figures, unless they come first."""

    id: str
    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    tiles: Sequence[Tile] = ()
    remarks: Sequence[Remarks] = ()
    figures_first: bool = False


def value_at(answer: Any, key: str) -> Any:
    """The value at a dotted path of the object; None if there is none."""
    for part in key.split("."):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer


def table(answer: Figures, caption: str, columns: Sequence[Column], places: Sequence[str]) -> Table:
    """One row for each path of the object. Columns of which nothing is known are not shown."""
    chosen = places[:MOST_ROWS]
    rows = [value_at(answer, place) for place in chosen]
    known = [
        column
        for index, column in enumerate(columns)
        if not index or any(value_at(row, column.key) not in (None, []) for row in rows)
    ]
    cells = [
        [Cell(shown(value_at(row, c.key), c.form), f"{place}.{c.key}") for c in known]
        for place, row in zip(chosen, rows, strict=True)
    ]
    titles = [column.title for column in known]
    return Table(caption, titles, cells, [column.form != "text" for column in known])


def table_of_runs(answer: Figures, caption: str, columns: Sequence[Column], places: Sequence[str]) -> Table:
    """A table whose rows are parts of runs: the first column names the run of each."""
    found = table(answer, caption, [Column("run", ""), *columns], places)
    rows = []
    for place, (_, *cells) in zip(places, found.rows, strict=False):
        run = ".".join(place.split(".")[:2])
        rows.append([Cell(str(value_at(answer, run)["id"]), f"{run}.id"), *cells])
    return Table(caption, found.columns, rows, found.numbers)


def shown(value: Any, form: Form) -> str:
    """A value as the page shows it."""
    if value is None:
        return UNKNOWN
    if isinstance(value, list):
        return ", ".join(map(str, value)) or UNKNOWN
    if form == "text" or isinstance(value, str):
        return str(value)
    if form == "count":
        return count_text(value)
    if form == "change":
        return change_text(value)
    if form == "gain":
        return change_text(100 * value)
    return digits(value) if form == "number" else quantity(value, form)
