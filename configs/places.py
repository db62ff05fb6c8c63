"""Where a violation is reported: at the key that the user wrote.

A rule between several keys is often broken by a value that nobody wrote: a default, or a preset's. Then the
violation moves to the nearest of the rule's keys, which the user can find, and says where the others are
from. Nearest means: the command line, the run's own file, other files, presets, defaults.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from frontrunner.configs.compose import COMMAND_LINE, COMPONENTS, DEGREES, SHARDING
from frontrunner.configs.errors import Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.yaml_tree import Node

_COMMAND_LINE, _OWN_FILE, _OTHER_FILE, _PRESET, _DEFAULT = range(5)


def place(violation: Violation, tree: Node, spec: RunSpec | None = None) -> Violation:
    """The violation at the nearest of its keys, with file and line, and the value if ``spec`` has it.

    ``tree`` is the composed run. A violation that has a file already stays as it is.
    """
    if violation.file is None:
        violation = _nearest(violation, tree) if violation.others else violation
    if violation.file is None:
        file, line = locate(tree, violation.path)
        violation = replace(violation, file=file, line=line)
        violation = _at_preset(violation, tree)
    if violation.value is None and spec is not None:
        value: Any = spec
        for key in violation.path.split("."):
            value = getattr(value, key, None)
        violation = violation if isinstance(value, BaseModel) else replace(violation, value=value)
    return violation


def locate(tree: Node, dotted: str) -> tuple[str | None, int | None]:
    """File and line of a key, or of its nearest parent; no line for the tree itself."""
    node, rest = tree, f"{_written(tree, dotted)}."
    while keys := [key for key in node.entries if rest.startswith(f"{key}.")]:
        key = max(keys, key=len)  # a key may contain dots (sources)
        node, rest = node.entries[key], rest[len(key) + 1 :]
    return node.source.shown, None if node is tree else node.line


def _written(tree: Node, path: str) -> str:
    """The key that a value was written under: steps may follow from tokens."""
    follows = path == "training.steps" and tree.at(path) is None and tree.at("training.tokens") is not None
    return "training.tokens" if follows else path


def _nearest(violation: Violation, tree: Node) -> Violation:
    """The violation at the nearest key; the rule's own first."""
    sides = [(violation.path, violation.constraint, violation.fix), *violation.others]
    sections = {path.partition(".")[0] for path, *_ in sides}
    distance = _distance if len(sections) > 1 else _leaf_distance
    path, constraint, fix = min(sides, key=lambda side: distance(tree, side[0]))
    given = [other for other, *_ in sides if other != violation.path or violation.value is not None]
    notes = _origins(tree, path, constraint, given)
    found = replace(violation, path=path, constraint=constraint + notes, fix=fix, others=())
    if path != violation.path:
        node = tree.at(path)
        found = replace(found, value=node.plain() if node and not node.entries else None)
    chosen = path in COMPONENTS or distance(tree, path) < _leaf_distance(tree, path)
    return _at_section(found, tree) if chosen else found


def _at_section(violation: Violation, tree: Node) -> Violation:
    """A fact of a preset, where the preset was chosen: the user did not write the preset's file."""
    section, _, key = violation.path.partition(".")
    fact = key if violation.value is None else f"{key} {violation.value}"
    name = tree.at(f"{section}.name")
    return replace(
        violation,
        path=section,
        value=name.plain() if name else None,
        constraint=f"{fact} {violation.constraint}" if key else violation.constraint,
        file=name.source.shown if name else None,
        line=name.line if name else None,
    )


def _at_preset(violation: Violation, tree: Node) -> Violation:
    """A degree that a sharding preset stands for, as that preset: only its name is in the file."""
    section, _, key = violation.path.rpartition(".")
    preset, degree = tree.at(f"{SHARDING}.preset"), tree.at(violation.path)
    if section != SHARDING or key not in DEGREES or not preset or not degree or preset.line != degree.line:
        return violation
    constraint = f"{key} {violation.value}: {violation.constraint}"
    return replace(violation, path=f"{SHARDING}.preset", value=preset.plain(), constraint=constraint)


def _distance(tree: Node, path: str) -> int:
    """How far a key is from the user. A fact of a model or machine is as near as the name of its preset."""
    leaf = _leaf_distance(tree, path)
    section = path.partition(".")[0]
    return min(leaf, _leaf_distance(tree, f"{section}.name")) if section in COMPONENTS else leaf


def _leaf_distance(tree: Node, path: str) -> int:
    node = tree.at(_written(tree, path))
    if node is None:
        return _DEFAULT
    if node.source.shown == COMMAND_LINE:
        return _COMMAND_LINE
    if node.source.shown == tree.source.shown:
        return _OWN_FILE
    return _PRESET if node.source.folder.is_relative_to(_presets()) else _OTHER_FILE


@lru_cache
def _presets() -> Path:
    return Path(str(files("frontrunner.configs")))


def _origins(tree: Node, path: str, constraint: str, keys: list[str]) -> str:
    """Where the other values that a constraint names are from, unless they are in the same file."""
    here = locate(tree, path)[0]
    mentioned = [k for k in keys if k != path and re.search(rf"\b{k.rpartition('.')[2]}\b", constraint)]
    defaults, elsewhere = [], []
    for key in dict.fromkeys(mentioned):
        name, node = key.rpartition(".")[2], tree.at(_written(tree, key))
        if node is None:
            defaults.append(name)
        elif node.source.shown != here and key.partition(".")[0] not in COMPONENTS:
            elsewhere.append(f"{name} is from {_origin(node)}")
    if defaults:
        *first, last = defaults
        plural = f"{', '.join(first)} and {last} are defaults"
        elsewhere.insert(0, plural if first else f"{last} is a default")
    return f" ({'; '.join(elsewhere)})" if elsewhere else ""


def _origin(node: Node) -> str:
    if node.source.folder.is_relative_to(_presets()):
        return f"preset {Path(node.source.shown).stem}"
    return f"{node.source.shown}:{node.line}" if node.line else f"the {node.source.shown}"
