"""Tables and sections of the report. Each cell knows its path in the object of ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontrunner.analysis.report.chart import Chart

Figures = dict[str, Any]
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
    """``key`` is below a row's path, ``scale`` the divisor, ``form`` the number format ("": text)."""

    title: str
    key: str
    form: str = ""
    scale: float = 1.0


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    id: str
    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


def value_at(answer: Any, key: str) -> Any:
    """The value at a dotted path of the object; None if there is none."""
    for part in key.split("."):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer


def table(answer: Figures, caption: str, columns: Sequence[Column], places: Sequence[str]) -> Table:
    """One row for each path of the object."""
    rows = []
    for place in places[:MOST_ROWS]:
        row = value_at(answer, place)
        rows.append([Cell(shown(value_at(row, c.key), c), f"{place}.{c.key}") for c in columns])
    return Table(caption, [column.title for column in columns], rows)


def shown(value: Any, column: Column) -> str:
    """A value as the page shows it."""
    if value is None:
        return UNKNOWN
    if not column.form:
        return str(value)
    return format(value if column.scale == 1 else value / column.scale, column.form)
