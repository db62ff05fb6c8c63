"""A figure as data. The page draws it with Plotly, the files for papers with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Value = float | None


@dataclass(frozen=True)
class Series:
    """One line, set of points or set of bars. ``low`` and ``high`` are the ends of the error bars."""

    name: str
    x: Sequence[Value | str]
    y: Sequence[Value]
    kind: Literal["lines", "markers", "lines+markers", "bar"] = "lines+markers"
    dashed: bool = False
    low: Sequence[Value] = ()
    high: Sequence[Value] = ()
    labels: Sequence[str] = ()
    """Text next to the points."""
    color: int | None = None
    """Series of one colour belong together; None assigns colours in order."""


@dataclass(frozen=True)
class Chart:
    """One figure. ``description`` says in words what it shows, for screen readers."""

    id: str
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    description: str
    log_x: bool = False
    log_y: bool = False
    stacked: bool = False
    y_from_zero: bool = False
    notes: Sequence[str] = field(default=())
