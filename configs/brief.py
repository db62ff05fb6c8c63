"""Writes short run files for people: some keys, with comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from frontrunner.configs.load import Dumper

WIDTH = 80
Notes = Mapping[str, Sequence[str]]


def brief(keys: Mapping[str, Any], notes: Notes | None = None) -> str:
    """A run file with ``keys`` in their order; ``notes`` are comment lines above dotted keys.

    A section takes one line if it fits and has no notes inside.
    """
    return "\n".join(_lines(keys, notes or {}, "", "")) + "\n"


def _lines(keys: Mapping[str, Any], notes: Notes, path: str, indent: str) -> Iterator[str]:
    for key, value in keys.items():
        dotted = f"{path}{key}"
        yield from (f"{indent}# {note}" for note in notes.get(dotted, ()))
        line = f"{indent}{key}: {_flow(value, key)}"
        noted = any(other.startswith(f"{dotted}.") for other in notes)
        if isinstance(value, dict) and value and (noted or len(line) > WIDTH):
            yield f"{indent}{key}:"
            yield from _lines(value, notes, f"{dotted}.", f"{indent}  ")
        else:
            yield line


def _flow(value: Any, key: str = "") -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v, k)}" for k, v in value.items()) + "}"
    if key == "tokens" and isinstance(value, int):
        return _engineering(value)
    text = yaml.dump([value], Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=10_000)
    return text.strip()[1:-1]


def _engineering(number: int) -> str:
    """300000000000 -> ``300e9``."""
    for power in (9, 6):
        if number >= 10**power and number % 10 ** (power - 3) == 0:
            return f"{number / 10**power:.15g}e{power}"
    return str(number)
