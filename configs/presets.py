"""The presets in the package: machines, models, runs and sweeps, each a YAML file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["machine", "model", "run", "sweep"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def names(kind: Kind) -> list[str]:
    """Names of the presets of a kind, sorted."""
    entries = (Path(entry.name) for entry in files(f"frontrunner.configs.{kind}s").iterdir())
    return sorted(entry.stem for entry in entries if entry.suffix == ".yaml")


def path(kind: Kind, name: str) -> Path | None:
    """The file of a preset; None if the name is unknown."""
    return Path(str(files(f"frontrunner.configs.{kind}s") / f"{name}.yaml")) if name in names(kind) else None


def kind_of(name: str) -> Kind | None:
    """The kind of the preset with this name; None if there is none."""
    return next((kind for kind in KINDS if name in names(kind)), None)


def suggest(word: str, known: Iterable[str]) -> str:
    """A fix for an unknown word: the nearest known one, or all of them."""
    choices = list(known)
    near = difflib.get_close_matches(word, choices, n=1) or [c for c in choices if c in word]
    return f"did you mean {near[0]}?" if near else f"use one of: {', '.join(choices)}"
