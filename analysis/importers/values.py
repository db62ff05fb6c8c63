"""Numbers as trainers print them. What should be a number but is none raises :class:`Lost`."""

from __future__ import annotations

import math
import re

from frontrunner.analysis.run_log import LARGEST_COUNT, LONGEST_STEP_S

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
GIB = 2.0**30

_VALUE = re.compile(
    rf"\s*({NUMBER}|[-+]?nan|[-+]?inf(?:inity)?)(?:\s*/\s*{NUMBER})?(?:\s*\(avg {NUMBER}\))?\s*$",
    re.IGNORECASE | re.ASCII,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
_SCALED = re.compile(rf"({NUMBER}|nan|-?inf)([KMBTPE]?)", re.IGNORECASE | re.ASCII)
_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}


class Lost(Exception):
    """A line that should be read but cannot be."""


def decoded(line: bytes) -> str:
    return line.decode("utf-8", errors="replace")


def put(values: dict[str, float | None], name: str, value: float | None) -> None:
    """Keep one field of a line. A repeated field means two interleaved lines."""
    if name in values:
        raise Lost
    values[name] = value


def number(printed: str) -> float | None:
    """A number; None for NaN and infinity, which trainers print for losses that diverged."""
    found = _VALUE.match(printed)
    if not found:
        raise Lost
    value = float(found[1])
    return value if math.isfinite(value) else None


def finite(printed: str) -> float:
    value = number(printed)
    if value is None:
        raise Lost
    return value


def grouped(printed: str) -> float:
    """A number that may have commas between its thousands."""
    return finite(printed.replace(",", "") if _GROUPED.fullmatch(printed) else printed)


def scaled(printed: str) -> float | None:
    """A number with a suffix for its thousands, from K to E; None for NaN and infinity."""
    found = _SCALED.fullmatch(printed.replace(",", "") if _GROUPED.match(printed) else printed)
    if not found:
        raise Lost
    value = float(found[1]) * _SCALES[found[2].upper()]
    return value if math.isfinite(value) else None


def count(printed: str) -> int:
    if len(printed) > 16 or not printed.isascii() or not printed.isdigit() or int(printed) > LARGEST_COUNT:
        raise Lost
    return int(printed)


def positive(value: float | None, most: float = float(LARGEST_COUNT)) -> float:
    """A speed, a size or the like: above 0 and at most ``most``."""
    if value is None or not 0 < value <= most:
        raise Lost
    return value


def seconds(value: float | None) -> float:
    """The time of a step."""
    return positive(value, LONGEST_STEP_S)
