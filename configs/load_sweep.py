"""Loads a sweep file and its base run; SpecError lists all problems."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from frontrunner.configs import compose, foreign, load
from frontrunner.configs.compose import COMMAND_LINE, find
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document
from frontrunner.configs.messages import UNKNOWN_KEY, violation
from frontrunner.configs.presets import suggest
from frontrunner.configs.sweep import (
    ACCUMULATION,
    MOST_POINTS,
    OWN_KEYS,
    AxisSpec,
    BudgetSpec,
    Scalar,
    SweepSpec,
)
from frontrunner.configs.types import Frozen
from frontrunner.configs.validate import validate
from frontrunner.configs.yaml_tree import Node, Source, read_file, show_path

_AXIS_FIX = "write [1, 2, 4], or {from: 1, to: 8}"


@dataclass(frozen=True)
class SweepDocument:
    """A sweep, its base run, and the locations of the sweep's values."""

    spec: SweepSpec
    base: Document
    tree: Node

    def violation(self, key: str, constraint: str, fix: str) -> Violation:
        """A violation at a dotted key of the sweep file, or at its parent."""
        node, path = _nearest(self.tree, key)
        found = node.violation(path, constraint, fix)
        return replace(found, value=None) if node.entries else found


def load_sweep(path_or_preset: str) -> SweepDocument:
    """The sweep of a file or preset; SpecError if it or its base run is invalid."""
    problems: list[Violation] = []
    path = find("sweep", Node(path_or_preset, Source(COMMAND_LINE, Path())), "", problems)
    if path and (other := foreign.instead(path, "sweep", show_path(path))):
        raise SpecError([other])
    tree = read_file(path, problems) if path else None
    if tree is None or path is None:
        raise SpecError(problems)
    if not tree.entries:
        raise SpecError([tree.violation("", "must be a mapping", "write `base:` and `space:`")])
    tree = tree.moved({"name": tree.moved(path.stem), **tree.entries})
    spec = _specification(tree, problems)
    base = None
    if "base" in tree.entries:
        file = find("run", tree.entries["base"], "base", problems)
        if file and file.resolve() == path.resolve():
            fix = "name the run file or preset to vary"
            problems.append(tree.entries["base"].violation("base", "is this sweep file itself", fix))
        elif file:
            base = load.load_run(str(file))
    if spec is None or base is None:
        raise SpecError(problems)
    problems += _check_space(spec, base, tree)
    if problems:
        raise SpecError(problems)
    return SweepDocument(spec, base, tree)


def _specification(tree: Node, problems: list[Violation]) -> SweepSpec | None:
    try:
        return SweepSpec.model_validate(tree.plain())
    except ValidationError as error:
        found = error.errors(include_url=False)
        # `base` is checked where it is loaded.
        problems += [_placed(e, tree) for e in found if e["loc"] != ("base",) or e["type"] == "missing"]
    return None


def _placed(error: Any, tree: Node) -> Violation:
    """A pydantic error with its location in the sweep file."""
    keys = [str(key) for key in error["loc"]]
    node, _ = _nearest(tree, ".".join(keys))
    mapping = error["type"] in ("missing", "model_type", "dict_type")
    if error["type"] == "extra_forbidden":
        if keys[0] == "space" and isinstance(error["input"], list | dict):
            fix = f"write a dotted key: {'.'.join(keys[1:])}"
            return node.violation(".".join(keys), "is not a list or range of values", fix)
        below: dict[str, type[Frozen]] = {"budget": BudgetSpec, "space": AxisSpec}
        known = below.get(keys[0], SweepSpec) if keys[1:] else SweepSpec
        names = [field.alias or name for name, field in known.model_fields.items()]
        return node.violation(".".join(keys), UNKNOWN_KEY, suggest(keys[-1], names))
    found = violation(error)
    assert found is not None
    found = replace(found, file=node.source.shown, line=node.line)
    if mapping and keys[0] == "space" and len(keys) == 2:
        return replace(found, constraint="is not a list or range of values", fix=_AXIS_FIX)
    fixes = {
        "base": "add a run file or preset",
        "space": "add keys with their values, for example nodes: [12, 16]",
        "budget": f"write keys under it ({', '.join(BudgetSpec.model_fields)}), or remove it",
    }
    return replace(found, fix=fixes.get(found.path, found.fix)) if mapping else found


def _nearest(tree: Node, dotted: str) -> tuple[Node, str]:
    """The node of a key, or of its nearest parent, and its dotted path."""
    node, rest, path = tree, f"{dotted}.", ""
    while keys := [key for key in node.entries if rest.startswith(f"{key}.")]:
        key = max(keys, key=len)
        node, rest, path = node.entries[key], rest[len(key) + 1 :], f"{path}.{key}".lstrip(".")
    return node, path or dotted


def _check_space(spec: SweepSpec, base: Document, tree: Node) -> list[Violation]:
    """Problems of the space alone: keys, types of values, conditions, missing values."""
    found: list[Violation] = []
    if not spec.space:
        what = "is empty"
        found.append(
            _nearest(tree, "space")[0].violation("space", what, "add a key, for example nodes: [12, 16]")
        )
    combinations = math.prod(max(1, axis.count) for axis in spec.space.values())
    if combinations > MOST_POINTS:  # before any is evaluated
        what = f"has {combinations:,} combinations, more than the limit of {MOST_POINTS:,}"
        place = _nearest(tree, "space")[0]
        return [replace(place.violation("space", what, "remove values"), value=None)]
    for key, axis in spec.space.items():
        node, path = _nearest(tree, f"space.{key}")
        found += _check_form(axis, node, path)
        found += _check_values(key, axis, base, node)
        for other, values in axis.when.items():
            found += _check_condition(key, other, values, spec, node)
    return found


def _check_form(axis: AxisSpec, node: Node, path: str) -> list[Violation]:
    ranged = axis.first is not None or axis.to is not None
    if axis.choices is not None and ranged:
        fix = "remove choices, or from and to"
        return [replace(node.violation(path, "has both choices and a range", fix), value=None)]
    values = axis.values()
    if not values:
        return [node.violation(path, "has no values", _AXIS_FIX)]
    kinds = [(type(value), value) for value in values]
    if len(set(kinds)) < len(kinds):
        return [node.violation(path, "has a value twice", "remove one of the two")]
    return []


def _check_values(key: str, axis: AxisSpec, base: Document, node: Node) -> list[Violation]:
    """Checks each value alone, on the base run, against the schema."""
    path = f"space.{key}"
    if key in OWN_KEYS:
        return [replace(node.violation(path, f"cannot vary: {OWN_KEYS[key]}", "remove it"), value=None)]
    if key == ACCUMULATION:
        wrong = [v for v in axis.values() if isinstance(v, bool) or not isinstance(v, int) or v < 1]
        fix = "use a number greater than 0"
        return [replace(node.violation(path, "must be integers of at least 1", fix), value=v) for v in wrong]
    found = []
    for value in axis.values():
        problem = _type_problem(base, key, value)
        if problem is None:
            continue
        problem = replace(problem, path=path, file=node.source.shown, line=node.line)
        section = base.tree.at(key)
        if problem.constraint == UNKNOWN_KEY:
            return [replace(problem, value=None)]
        if section and section.entries and problem.constraint.startswith("must be a mapping"):
            fix = f"name a key under it, such as {key}.{next(iter(section.entries))}"
            return [replace(problem, value=None, constraint="is a section, not one value", fix=fix)]
        found.append(replace(problem, value=value))
    return found


def _type_problem(base: Document, key: str, value: Scalar) -> Violation | None:
    problems: list[Violation] = []
    tree = compose.vary(base.tree, {key: value}, problems)
    validate(tree.plain(), problems)
    return problems[0] if problems else None


def _check_condition(
    key: str, other: str, values: list[Scalar], spec: SweepSpec, node: Node
) -> list[Violation]:
    """A condition must name another key of the space, with values of that key."""
    path = f"space.{key}.when"
    place = node.at("when") or node
    if other == key or other not in spec.space:
        fix = suggest(other, [name for name in spec.space if name != key])
        what = f"{other} is not another key of the space"
        return [replace(place.violation(path, what, fix), value=None)]
    if spec.space[other].when:
        what = f"{other} has a condition of its own"
        return [replace(place.violation(path, what, "name a key without one"), value=None)]
    known = spec.space[other].values()
    wrong = [value for value in values if value not in known]
    fix = f"use values from: {', '.join(map(str, known))}"
    return [replace(place.violation(path, f"{other} never takes this value", fix), value=v) for v in wrong]
