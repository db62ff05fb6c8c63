"""Numbers for display, the only place that formats them: three significant digits in a unit that fits.

Values inside the program are SI; only displayed values are scaled. Counts (devices, steps) are shown whole.
"""

from __future__ import annotations

import math
from typing import Literal

UNKNOWN = "-"
Kind = Literal["number", "bytes", "flops", "seconds", "share", "tokens"]

#: Names of units and their sizes, the smallest first.
_BYTES = tuple(
    (f"{prefix}B", 1024.0**power) for power, prefix in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi"))
)
_FLOPS = tuple(
    (f"{prefix}FLOP/s", 1000.0**power) for power, prefix in enumerate(("", "k", "M", "G", "T", "P", "E"))
)
_UNITS: dict[Kind, tuple[tuple[str, float], ...]] = {
    "number": (("", 1.0),),
    "bytes": _BYTES,
    "flops": _FLOPS,
    "seconds": (("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)),
    "share": (("%", 0.01),),
    "tokens": (("tokens/s", 1.0),),
}


def digits(value: float | None) -> str:
    """Three significant digits, never with an exponent: ``0.01234`` -> ``0.0123``, ``12345`` -> ``12,300``.

    Numbers below 1e-4 are the exception: ``1.2e-05``.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    rounded = _round(value)
    size = _magnitude(rounded)
    if rounded and size < -4:
        return f"{rounded:.2e}"
    return f"{rounded:,.{max(0, 2 - size)}f}"


def count_text(value: float | None) -> str:
    """A whole number: ``12345`` -> ``12,345``."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def unit_of(kind: Kind, value: float | None) -> tuple[str, float]:
    """The unit in which a value of that size is shown, and its size: ``bytes``, 1536 -> ``("KiB", 1024)``."""
    units = _UNITS[kind]
    found = units[0] if value else next((unit for unit in units if unit[1] == 1.0), units[0])
    for unit in units:
        if value and math.isfinite(value) and abs(_round(value / unit[1])) >= 1:
            found = unit
    return found


def quantity(value: float | None, kind: Kind) -> str:
    """A value with its unit: ``1.5e12`` of ``flops`` -> ``1.50 TFLOP/s``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    name, size = unit_of(kind, value)
    whole = name == "B" and float(value).is_integer()
    return f"{count_text(value) if whole else digits(value / size)} {name}".rstrip()


def change_text(percent: float | None) -> str:
    """A difference in percent, with its sign: ``-1.456`` -> ``-1.46 %``."""
    if percent is None or not math.isfinite(percent):
        return UNKNOWN
    return f"{'+' if percent >= 0 else ''}{digits(percent)} %"


def _round(value: float) -> float:
    return float(f"{value:.2e}")


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def bytes_text(value: float | None) -> str:
    """``1536`` -> ``1.50 KiB``."""
    return quantity(value, "bytes")


def flops_text(value: float | None) -> str:
    """``1.5e12`` -> ``1.50 TFLOP/s``; the caller says whether model or hardware FLOPs."""
    return quantity(value, "flops")


def model_flops_text(value: float | None, mfu: float | None) -> str:
    """Model FLOP/s, with MFU if the device's peak is known."""
    return flops_text(value) + ("" if mfu is None else f" (MFU {share_text(mfu)})")


def share_text(value: float | None) -> str:
    """``0.2634`` -> ``26.3 %``."""
    return quantity(value, "share")


def seconds_text(value: float | None) -> str:
    """A step's time: ``0.0123`` -> ``12.3 ms``."""
    return quantity(value, "seconds")


def duration_text(value: float | None) -> str:
    """A run's time: ``3723`` -> ``1:02:03``, ``62`` -> ``1:02``."""
    if value is None:
        return UNKNOWN
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def number_text(value: float | None, form: str) -> str:
    """``value`` in a format like ``.4f``; a dash if it is unknown or not finite."""
    return UNKNOWN if value is None else format(value, form)


def levels_text(sent: dict[str, float] | None) -> str:
    """Bytes per level: ``package 1.50 MiB, node 0 B, network 12.0 KiB``."""
    return ", ".join(f"{level} {bytes_text(value)}" for level, value in sent.items()) if sent else UNKNOWN


def interval_text(percent: float | None) -> str:
    """The half width of an interval, to follow a figure: `` +- 9 %``; empty if it is unknown."""
    return "" if percent is None else f" +- {percent:.0f} %"
