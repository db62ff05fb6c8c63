"""The presets in the package: machines, models, runs and sweeps, each a YAML file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["machine", "model", "run", "sweep"]
#: Other words for presets.
ALIASES = {"lumi": "lumi-g", "olcf": "frontier", "neox-20b": "gpt-neox-20b"}
ALIASES |= dict.fromkeys(("local", "localhost", "laptop", "cpu"), "workstation")
KINDS: tuple[Kind, ...] = get_args(Kind)


def names(kind: Kind) -> list[str]:
    """Names of the presets of a kind, sorted."""
    return list(_names(kind))


@cache  # they do not change while a process runs
def _names(kind: Kind) -> tuple[str, ...]:
    entries = (Path(entry.name) for entry in files(f"frontrunner.configs.{kind}s").iterdir())
    return tuple(sorted(entry.stem for entry in entries if entry.suffix == ".yaml"))


def path(kind: Kind, name: str) -> Path | None:
    """The file of a preset; None if the name is unknown."""
    return Path(str(files(f"frontrunner.configs.{kind}s") / f"{name}.yaml")) if name in names(kind) else None


def kind_of(name: str) -> Kind | None:
    """The kind of the preset with this name; None if there is none."""
    return next((kind for kind in KINDS if name in names(kind)), None)


def meant(word: str) -> tuple[Kind, str] | None:
    """Kind and name of the preset that a word means, as others write it: ``meta-llama/Llama-3.1-8B``."""
    every = ((kind, name) for kind in KINDS for name in names(kind))
    return next((found for found in every if _same(word, found[1])), None)


def near(word: str) -> tuple[Kind, str] | None:
    """Kind and name of the preset of any kind with nearly this name."""
    known = {name: kind for kind in KINDS for name in names(kind)}
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.8)
    return (known[found[0]], found[0]) if found else None


def suggest(word: str, known: Iterable[str]) -> str:
    """A fix for an unknown word: the nearest known one, or all of them."""
    choices, plain = list(known), _plain(word)
    near = [c for c in choices if _same(word, c)] or difflib.get_close_matches(word, choices, n=1)
    near = near or [c for c in choices if c in word or len(plain) > 3 and plain in _plain(c)]
    return f"did you mean {near[0]}?" if near else f"use one of: {', '.join(choices)}"


def _same(word: str, name: str) -> bool:
    return ALIASES.get(word.lower()) == name or _plain(word) == _plain(name) != ""


def _plain(word: str) -> str:
    """A name without organisation, minor version and style: ``llama38b``."""
    word = re.sub(r"(?<=\d)\.\d+(?=[-_])", "", word.lower().rpartition("/")[2])
    return re.sub(r"[^a-z0-9]|meta|instruct|chat|\bhf\b", "", word)
