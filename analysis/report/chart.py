"""A figure as data, in SI units. The page draws it with Plotly, the files for papers with matplotlib."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Literal

from frontrunner.configs.units import Kind, count_text, digits, quantity, unit_of

Value = float | None

#: A part of a stack below this share of the longest part leaves no mark: less than a pixel.
THINNEST = 0.001


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
    faint: bool = False
    """Drawn weakly, behind the others."""
    in_legend: bool = True
    """Series without an entry are hidden and shown with the one of their colour."""


@dataclass(frozen=True)
class Limit:
    """A line across the whole figure, such as the memory of a device."""

    name: str
    value: float


@dataclass(frozen=True)
class Chart:
    """One figure. ``description`` says in words what it shows, for screen readers.

    ``x_kind`` and ``y_kind`` select the units of the axes, whose titles do not name them. Bars lie on their
    side, with the names in ``x`` from top to bottom.
    """

    id: str
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    description: str
    x_kind: Kind = "number"
    y_kind: Kind = "number"
    log_x: bool = False
    log_y: bool = False
    stacked: bool = False
    y_from_zero: bool = False
    limits: Sequence[Limit] = ()
    notes: Sequence[str] = field(default=())

    @property
    def bars(self) -> bool:
        return any(series.kind == "bar" for series in self.series)


def visible(chart: Chart) -> list[Series]:
    """The series that leave a mark: those with a point on the axes, or a bar of some length."""
    return [series for series in chart.series if any(_marks(chart, series))]


def colors(series: Sequence[Series]) -> list[int]:
    """The number of each series' colour. Series without one get the next that no other series has."""
    taken = {each.color for each in series if each.color is not None}
    free = (number for number in range(len(series) + len(taken)) if number not in taken)
    return [each.color if each.color is not None else next(free) for each in series]


def _marks(chart: Chart, series: Series) -> Iterator[bool]:
    """For each point, whether it is seen. A part of a stack can be thinner than a pixel."""
    lengths = _numbers(value for each in chart.series for value in each.y) if chart.stacked else []
    least = THINNEST * max(map(abs, lengths), default=0.0)
    for x, y in zip(series.x, series.y, strict=True):
        known = y is not None and math.isfinite(y) and x is not None
        if not known or y is None:
            yield False
        elif series.kind == "bar":
            yield abs(y) > least
        else:
            yield (y > 0 or not chart.log_y) and (not isinstance(x, int | float) or x > 0 or not chart.log_x)


def unit_y(chart: Chart) -> tuple[str, float]:
    """The unit of the y axis (of bars: of their length) and its size."""
    values = [*_numbers(value for series in visible(chart) for value in series.y)]
    return unit_of(
        chart.y_kind, max([abs(v) for v in values] + [limit.value for limit in chart.limits], default=0)
    )


def unit_x(chart: Chart) -> tuple[str, float]:
    """The unit of the x axis and its size."""
    values = _numbers(value for series in visible(chart) for value in series.x)
    return unit_of(chart.x_kind, max((abs(value) for value in values), default=0.0))


def _numbers(values: Iterable[object]) -> list[float]:
    return [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]


def titled(title: str, unit: str) -> str:
    """The title of an axis: ``peak memory (GiB)``; a unit that the title names already is not repeated."""
    return f"{title} ({unit})".strip() if unit and unit not in title.split() else title


def value_text(value: Value | str, kind: Kind) -> str:
    """A value of a figure in words; whole numbers without a unit are counts."""
    if isinstance(value, str):
        return value
    if kind == "number" and isinstance(value, int):
        return count_text(value)
    return digits(value) if kind == "number" else quantity(value, kind)


def names(chart: Chart) -> list[str]:
    """The names of a figure's bars, each once. Names may have a second line: ``RUN\\nmeasured``."""
    return list(dict.fromkeys(str(name) for series in chart.series for name in series.x))


def one_line(name: str) -> str:
    """A name without its line break."""
    return ", ".join(name.splitlines())


def bar_ends(chart: Chart) -> float:
    """The length of the longest bar or stack, or the furthest limit, in SI."""
    ends = dict.fromkeys(names(chart), 0.0)
    longest = 0.0
    for series in visible(chart):
        for name, value in zip(series.x, series.y, strict=True):
            ends[str(name)] += value or 0.0
            longest = max(longest, value or 0.0)
    return max(
        [
            max(ends.values(), default=0.0) if chart.stacked else longest,
            *(limit.value for limit in chart.limits),
        ]
    )


def log_ticks(values: Iterable[float]) -> list[float]:
    """Ticks of a logarithmic axis over positive values: powers of ten; 1, 2, 5 between if there are few."""
    known = [value for value in values if value > 0]
    if not known:
        return []
    low, high = math.log10(min(known)), math.log10(max(known))
    powers = range(math.floor(low) - 1, math.ceil(high) + 2)
    steps = (1.0, 2.0, 5.0) if high - low < 2.5 else (1.0,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    margin = 0.1 * (high - low) + 0.05
    return [tick for tick in ticks if low - margin <= math.log10(tick) <= high + margin]


def without_shared_start(names: Sequence[str], most: int) -> list[str]:
    """The names without what all begin with, cut at a separator. As much stays as ``most`` letters hold."""
    start = commonprefix(list(names)) if len(set(names)) > 1 else ""
    cuts = [place + 1 for place, letter in enumerate(start) if letter in "-_/ "]
    if not cuts:
        return list(names)
    longest = max(map(len, names))
    cut = next((cut for cut in cuts if longest - cut < most), cuts[-1])
    return [f"…{name[cut:]}" for name in names]


def shortened(name: str, most: int) -> str:
    """A name of at most ``most`` characters: its middle gives way, because names differ at their ends."""
    if len(name) <= most:
        return name
    return f"{name[: (most - 1) // 2]}…{name[-(most // 2) :]}"
