"""Numbers for display. Values inside the program are SI; only displayed values are scaled."""

from __future__ import annotations

UNKNOWN = "-"


def bytes_text(value: float | None) -> str:
    """``1536`` -> ``1.5 KiB``."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def flops_text(value: float | None) -> str:
    """``1.5e12`` -> ``1.50 TFLOP/s``; the caller says whether model or hardware FLOPs."""
    if value is None:
        return UNKNOWN
    for unit in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 1000 or unit == "P":
            break
        value /= 1000
    return f"{value:.2f} {unit}FLOP/s"


def model_flops_text(value: float | None, mfu: float | None) -> str:
    """Model FLOP/s, with MFU if the device's peak is known."""
    return flops_text(value) + ("" if mfu is None else f" (MFU {mfu:.1%})")


def seconds_text(value: float | None) -> str:
    """A step's time: ``0.0123`` -> ``12.3 ms``."""
    if value is None:
        return UNKNOWN
    return f"{value * 1000:.1f} ms" if abs(value) < 1 else f"{value:.2f} s"


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
    """Bytes per level: ``package 1.5 MiB, node 0 B, network 12.0 KiB``."""
    return ", ".join(f"{level} {bytes_text(value)}" for level, value in sent.items()) if sent else UNKNOWN
