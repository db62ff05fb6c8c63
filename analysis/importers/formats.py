"""Which trainer wrote a log: the one whose steps it has most of.

A launcher may print steps of its own, and a log may hold the output of another program.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl

from frontrunner.analysis.importers import (
    hugging_face,
    labels,
    llm_foundry,
    megatron,
    nanotron,
    nemo,
    olmo_core,
    text_log,
    torchtitan,
)
from frontrunner.analysis.importers.lines import Lines
from frontrunner.analysis.run_log import RunLog


class Format(NamedTuple):
    """One of ``marks`` is in each of its step lines; ``begun`` is where a step begins, whole or damaged."""

    marks: tuple[bytes, ...]
    begun: re.Pattern[bytes]
    importer: Callable[[], text_log.Importer] | None


#: An importer of None is Megatron's, which has a reader of its own.
FORMATS = (
    Format((b"elapsed time per iteration",), re.compile(rb"\biteration\s+\d+\s*/\s*\d+\s*\|"), None),
    Format((b"step:",), torchtitan.BEGUN, torchtitan.Torchtitan),
    Format((b"poch ",), nemo.BEGUN, nemo.Nemo),
    Format((b"iteration: ",), nanotron.BEGUN, nanotron.Nanotron),
    Format((b"[step=",), olmo_core.BEGUN, olmo_core.OlmoCore),
    Format((b"[batch=", b"[token=", b"[sample="), llm_foundry.BEGUN, llm_foundry.LlmFoundry),
    Format((b"'loss'",), hugging_face.BEGUN, hugging_face.HuggingFace),
)


_MARKS = [(index, mark) for index, each in enumerate(FORMATS) for mark in each.marks]


def read(path: Path, run_id: str) -> tuple[RunLog, pl.DataFrame] | str:
    """The run of a log, or why there is none. Raises OSError if it cannot be opened."""
    if hugging_face.is_state(path):
        return hugging_face.read_state(path, run_id)
    found = _most(path)
    if found is None or found.importer is None:
        return megatron.read(path, run_id)
    return text_log.read(path, run_id, found.importer())


def _most(path: Path) -> Format | None:
    steps: Counter[int] = Counter()
    for line in Lines(path):
        marked = [index for index, mark in _MARKS if mark in line]
        if not marked:
            continue
        plain = labels.without_escapes(line)
        for index in set(marked):
            if begun := sum(1 for _ in FORMATS[index].begun.finditer(plain)):
                steps[index] += begun
    return FORMATS[steps.most_common(1)[0][0]] if steps else None
