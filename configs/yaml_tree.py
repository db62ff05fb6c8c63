"""Reads YAML into a tree that records the location of each value.

Plain data only: other tags are violations, and nothing is ever executed. Values follow YAML 1.2, as in
editors: ``6e-5`` is a number, ``yes`` is not a boolean, ``010`` is not octal. Duplicate keys, undefined
aliases and alias bombs are violations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from frontrunner.configs.errors import Violation
from frontrunner.configs.plain_files import open_plain

LARGEST_FILE = 1 << 20  # bytes
LARGEST_TREE = 100_000  # values, with aliases expanded
DEEPEST_TREE = 32
TWICE = "is given twice"  # the value stays known: the first one counts

Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Node] | dict[str, Node]"

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_CONSTANTS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")
_BASED = re.compile(r"0o[0-7]{1,4000}|0x[0-9a-fA-F]{1,4000}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PLAIN_TYPES = ("bool", "float", "int", "map", "null", "seq", "str")
_PLAIN_TAGS = {None, "!"} | {f"tag:yaml.org,2002:{name}" for name in _PLAIN_TYPES}


@dataclass(frozen=True)
class Source:
    """Origin of a text: its display name and the base folder of its relative paths."""

    shown: str
    folder: Path


@dataclass(frozen=True, eq=False)
class Node:
    """A value with its location; ``line`` (from 1) is the line of its key."""

    value: Value
    source: Source
    line: int | None = None

    @property
    def entries(self) -> dict[str, Node]:
        """The children of a mapping; none for anything else."""
        return self.value if isinstance(self.value, dict) else {}

    def moved(self, value: Value) -> Node:
        """Another value at the same location."""
        return Node(value, self.source, self.line)

    def at(self, path: str) -> Node | None:
        """The node at a dotted path below this one."""
        node: Node | None = self
        for key in path.split("."):
            node = node.entries.get(key) if node else None
        return node

    def leaves(self) -> Iterator[Node]:
        for child in self.entries.values():
            yield from child.leaves()
        if not self.entries:
            yield self

    def plain(self) -> Any:
        """The value without locations."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def violation(self, path: str, constraint: str, fix: str) -> Violation:
        return Violation(path, self.plain(), constraint, fix, self.source.shown, self.line)


def show_path(path: Path) -> str:
    """A path as the user would write it: relative if it is below the working directory."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_file(path: Path, problems: list[Violation], key: str = "") -> Node | None:
    """The tree of a YAML (or JSON) file; None and at least one new problem if it cannot be read.

    ``key`` is the dotted path under which the file's keys belong.
    """
    source = Source(show_path(path), path.parent)
    try:
        text = _text(path)
    except _StopError as stop:
        problems.append(Violation(key, None, stop.constraint, stop.fix, source.shown, stop.line))
        return None
    return read_text(text, source, problems, key)


def read_text(
    text: str, source: Source, problems: list[Violation], key: str = "", lines: bool = True
) -> Node | None:
    """The tree of a YAML text; None and at least one new problem if it cannot be parsed.

    After duplicate keys (the first counts) and tags, the rest stays readable. ``lines`` is false if the
    text is not from a file, where line numbers mean nothing.
    """
    tree, found = _tree(text, source, key, lines)
    problems += found
    return tree


@lru_cache(maxsize=64)  # a process that loads many runs reads the same presets again and again
def _tree(text: str, source: Source, key: str, lines: bool) -> tuple[Node | None, tuple[Violation, ...]]:
    problems: list[Violation] = []
    return _read(text, source, problems, key, lines), tuple(problems)


def _read(text: str, source: Source, problems: list[Violation], key: str, lines: bool) -> Node | None:
    reader = _Reader(source, problems, lines)
    try:
        return reader.document(yaml.parse(text, Loader=_LOADER), key)
    except _StopError as stop:
        reader.refuse(stop.path or key, stop.constraint, stop.fix, stop.line)
    except yaml.YAMLError as error:
        mark, position = getattr(error, "problem_mark", None), getattr(error, "position", None)
        line = mark.line + 1 if mark else None if position is None else text.count("\n", 0, position) + 1
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
        reader.refuse(key, f"is not YAML: {what}", "check indentation, colons and quotes", line)
    except UnicodeEncodeError:
        reader.refuse(key, "is not valid Unicode text", "write it in UTF-8", None)
    return None


class _StopError(Exception):
    """Reading cannot continue."""

    def __init__(self, constraint: str, fix: str, line: int | None = None, path: str = "") -> None:
        super().__init__(constraint)
        self.constraint, self.fix, self.line, self.path = constraint, fix, line, path


def _text(path: Path) -> str:
    """A file's text; _StopError if it cannot be read."""
    try:
        with open_plain(path) as file:
            data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise _StopError("no such file", "check the path") from None
    except IsADirectoryError:
        raise _StopError("is a directory, not a file", "name the YAML file itself") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise _StopError(f"cannot be read ({reason})", "check the path and its permissions") from None
    if len(data) > LARGEST_FILE:
        raise _StopError(f"is larger than {LARGEST_FILE:,} bytes", "name a run file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"is not UTF-8 text (byte {data[error.start]:#04x})"
        raise _StopError(what, "save it as UTF-8", line) from None


class _Reader:
    """Builds nodes from the parser's events, children before the mapping that holds them."""

    def __init__(self, source: Source, problems: list[Violation], lines: bool) -> None:
        self.source, self.problems, self.lines = source, problems, lines
        self.anchors: dict[str, tuple[Node, int]] = {}
        self.size = 0

    def refuse(self, path: str, constraint: str, fix: str, line: int | None) -> None:
        line = line if self.lines else None
        self.problems.append(Violation(path, None, constraint, fix, self.source.shown, line))

    def place(self, value: Value, line: int) -> Node:
        return Node(value, self.source, line if self.lines else None)

    def document(self, events: Iterator[Any], path: str) -> Node:
        node: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if node:
                    raise _StopError("contains a second document", "keep one (no ---)", _line(event), path)
                node = self.node(next(events), events, path, 0)
        return node or self.place(None, 1)

    def node(self, event: Any, events: Iterator[Any], path: str, depth: int) -> Node:
        line = _line(event)
        start = self.size
        self.size += 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                what = f"*{event.anchor} refers to itself or is undefined"
                raise _StopError(what, "write the value out", line, path)
            node, size = self.anchors[event.anchor]
            self.size += size
        else:
            if depth > DEEPEST_TREE:
                raise _StopError(f"is nested more than {DEEPEST_TREE} levels deep", "flatten it", line, path)
            node = self.place(self.value(event, events, path, depth), line)
            if event.anchor:
                self.anchors[event.anchor] = (node, self.size - start)
        if self.size > LARGEST_TREE:
            raise _StopError(f"contains more than {LARGEST_TREE:,} values", "use a smaller file", line, path)
        return node

    def value(self, event: Any, events: Iterator[Any], path: str, depth: int) -> Value:
        self.check_tag(event, path)
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(events, path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self.node(event, events, f"{path}[{len(items)}]", depth + 1))
            return items
        quoted = event.implicit[1] or event.tag in ("!", "tag:yaml.org,2002:str")
        return str(event.value) if quoted else plain_scalar(event.value)

    def check_tag(self, event: Any, path: str) -> None:
        if event.tag not in _PLAIN_TAGS:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.refuse(path, f"the tag {tag} is not supported", "remove it", _line(event))

    def mapping(self, events: Iterator[Any], path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: list[Node] = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _StopError("a key must be a plain word", "write key: value", line, path)
            self.check_tag(event, path)
            below = f"{path}.{event.value}" if path else event.value
            node = self.node(next(events), events, below, depth + 1)
            if event.value == "<<" and event.implicit[0]:
                merged += node.value if isinstance(node.value, list) else [node]
            elif event.value in entries:
                first = f" (first on line {entries[event.value].line})" if self.lines else ""
                self.refuse(below, f"{TWICE}{first}", "remove one of the two", line)
            else:
                entries[event.value] = self.place(node.value, line)
        for node in merged:
            if not isinstance(node.value, dict):
                self.refuse(path, "<< merges mappings only", "use an alias of a mapping", node.line)
            entries = {**node.entries, **entries}
        return entries


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def plain_scalar(text: str) -> Scalar:
    """A plain scalar in YAML 1.2's core schema (section 10.3.2), except that .inf and .nan stay text."""
    if text.lower() in _CONSTANTS and text in (text.lower(), text.upper(), text.capitalize()):
        return _CONSTANTS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
