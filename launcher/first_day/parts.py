"""The parts of a first day: what measures each, for how long at most, and the file that lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.ranks.rank import TRAIN
from frontrunner.run_folder import files

_MEASURE = "frontrunner.parallelism.runtime.first_day.{}:measure"
NATIVE, PLAIN = "native", "plain"
#: Parts that take steps of one model, each with another engine.
ENGINES = (NATIVE, PLAIN, "fsdp", "deepspeed")
#: What measures each part, and its limit in seconds: ten minutes in all, starts included.
PARTS: dict[str, tuple[str, float]] = {
    "kernels": (_MEASURE.format("kernels"), 60.0),
    "rates": (_MEASURE.format("rates"), 60.0),
    "streams": (_MEASURE.format("races"), 60.0),
    NATIVE: (TRAIN, 90.0),
    PLAIN: (_MEASURE.format("plain"), 75.0),
    "fsdp": (TRAIN, 75.0),
    "deepspeed": (TRAIN, 75.0),
    "collectives": (_MEASURE.format("links"), 75.0),
}


@dataclass(frozen=True)
class Part:
    """One part: its ranks call ``target`` in the folder of that name, for ``limit_s`` at most.

    ``why_not`` says why it is not started, if it is not.
    """

    name: str
    target: str
    limit_s: float
    why_not: str | None = None


@dataclass(frozen=True)
class Request:
    """The parts of a folder, and what the reader should know of what they measure."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...]


def write(folder: Path, parts: Sequence[Part], notes: Sequence[str]) -> None:
    text = json.dumps({"parts": [asdict(part) for part in parts], "notes": list(notes)})
    (folder / files.PARTS).write_text(text, encoding="utf-8")


def read(folder: Path) -> Request:
    """What :func:`write` wrote; SpecError if the file holds something else."""
    path = folder / files.PARTS
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Request(tuple(Part(**part) for part in known["parts"]), tuple(known["notes"]))
    except (ValueError, KeyError, TypeError):
        what, fix = "holds no parts of a first day", "measure again with --first-day"
        raise SpecError([Violation("", str(path), what, fix)]) from None
