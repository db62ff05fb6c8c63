"""Checks a composed tree against the schema, and keeps the valid parts of an invalid tree.

One misspelt key must not hide other mistakes. Invalid values are set aside, and the rest still becomes a
specification, with a list of its meaningless values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from frontrunner.configs.errors import Violation
from frontrunner.configs.messages import UNKNOWN_KEY, location, nearest_key, violation
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.yaml_tree import TWICE

_LINK = {"bandwidth_bytes_per_s": 1, "latency_s": 0}
#: A valid placeholder for each section; no conclusions are drawn from it.
STAND_INS: dict[str, Any] = {
    "name": "unknown",
    "model": {"num_layers": 1, "hidden_size": 1, "num_heads": 1, "vocab_size": 1},
    "machine": {
        "num_nodes": 1,
        "packages_per_node": 1,
        "devices_per_package": 1,
        "device": {"name": "unknown", "memory_bytes": 1},
        "links": {"package": _LINK, "node": _LINK, "network": _LINK},
    },
    "nodes": 1,
    "layout": {},
    "training": {},
    "optimizer": {},
    "data": "synthetic",
    "slurm": {},
}


@dataclass(frozen=True)
class Outcome:
    """``spec`` is the request, except for the values at or below the dotted keys ``unknown``."""

    spec: RunSpec
    unknown: frozenset[str]

    def knows(self, path: str) -> bool:
        return not any(_related(path, other) for other in self.unknown)


def validate(data: dict[str, Any], problems: list[Violation]) -> Outcome:
    """Appends schema errors in ``data`` to ``problems`` (without locations) and salvages the rest.

    A key that ``problems`` already names counts as wrong and is not reported again. What is wrong is
    removed from ``data``.
    """
    data.setdefault("training", {})
    counted = isinstance(data["training"], dict) and data["training"].get("tokens") is not None
    reported = {p.path for p in problems if p.path and not p.constraint.startswith(TWICE)}
    orphan = "extends" in reported  # keys of the parent cannot be missing here
    unknown = set(RunSpec.model_fields) if orphan else set(reported)
    for error in _errors(data):
        found = violation(error)
        if found is None or orphan and error["type"] == "missing":
            continue
        if not any(_related(found.path, path) for path in reported):
            problems.append(found)
        # An unknown key sets no value, but the key that was meant is not missing either.
        misspelt = found.constraint == UNKNOWN_KEY
        unknown.add((nearest_key(location(error)) or "") if misspelt else found.path)
        _remove(data, location(error))
    if counted and unknown:
        unknown.add("training.steps")  # they follow from tokens and the batch, which may be wrong
    for path in reported:
        _remove(data, path.split("."))
    data.setdefault("training", {})
    for section in {location(error)[0] for error in _errors(data) if violation(error)}:
        unknown.add(section)
        data[section] = STAND_INS[section]
    return Outcome(RunSpec.model_validate(data), frozenset(unknown - {""}))


def _errors(data: dict[str, Any]) -> list[Any]:
    try:
        RunSpec.model_validate(data)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def _related(a: str, b: str) -> bool:
    """Whether two dotted keys are equal or one contains the other."""
    return a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.")


def _remove(data: Any, keys: list[str]) -> None:
    for key in keys[:-1]:
        data = data.get(key) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(keys[-1], None)
