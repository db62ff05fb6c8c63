"""Tables and sections of the report, whose cells know their place in the object of ``--json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontrunner.analysis.report.chart import Chart

Figures = dict[str, Any]
UNKNOWN = "–"

#: More rows than these make no table that anybody reads; --csv has all.
MOST_ROWS = 500


@dataclass(frozen=True)
class Cell:
    """A figure of a table: what is shown, and its place in the object of ``--json`` (dotted)."""

    text: str
    key: str = ""


@dataclass(frozen=True)
class Column:
    """``key`` below a row's place, ``scale`` what it is divided by, ``form`` how it is written ("": text)."""

    title: str
    key: str
    form: str = ""
    scale: float = 1.0


@dataclass(frozen=True)
class Table:
    """Rows of cells, the first of which names the row."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """One part of the page."""

    id: str
    title: str
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()


def value_at(answer: Any, key: str) -> Any:
    """What stands at a dotted place of the object; None where there is nothing."""
    for part in key.split("."):
        if isinstance(answer, list):
            answer = answer[int(part)] if int(part) < len(answer) else None
        else:
            answer = answer.get(part) if isinstance(answer, dict) else None
    return answer


def table(answer: Figures, caption: str, columns: Sequence[Column], places: Sequence[str]) -> Table:
    """A row for each place of the object."""
    rows = []
    for place in places[:MOST_ROWS]:
        row = value_at(answer, place)
        rows.append([Cell(shown(value_at(row, c.key), c), f"{place}.{c.key}") for c in columns])
    return Table(caption, [column.title for column in columns], rows)


def shown(value: Any, column: Column) -> str:
    """A figure as the page writes it."""
    if value is None:
        return UNKNOWN
    if not column.form:
        return str(value)
    return format(value if column.scale == 1 else value / column.scale, column.form)
