"""The text of machine files that are measured or fitted: one that exists, with other rates for a year."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def fitted_keys(constants: Mapping[str, float], runs: list[str]) -> dict[str, Any]:
    """Keys of a ``software`` section for fitted constants (dotted names), with the runs of the fit."""
    own: dict[str, Any] = {key: value for key, value in constants.items() if "." not in key}
    rings = {key.removeprefix("rings."): value for key, value in constants.items() if "." in key}
    return own | ({"rings": rings} if rings else {}) | {"fitted": dict.fromkeys(constants, runs)}


def based_on(machine: str, year: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a machine that extends a preset or file, with ``section`` for that year's software."""
    path = Path(machine)
    base = str(path.resolve()) if path.exists() else machine
    return {"extends": base, "software": {year: dict(section)}}


def text(comment: str, keys: Mapping[str, Any]) -> str:
    return f"# {comment}\n" + yaml.safe_dump(dict(keys), sort_keys=False, width=108)
