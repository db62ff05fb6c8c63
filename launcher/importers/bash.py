"""Reads a bash script without running it: the commands that it would start, with their words.

Assignments, arrays, arithmetic, ``if``, ``case``, ``for`` and functions are followed. Programs are not
started: what only they would tell is marked as not known (:mod:`bash_expansion`), and a condition on it is
left undecided, with the commands that depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.launcher.importers import sbatch
from frontrunner.launcher.importers.bash_conditions import Branches, decide
from frontrunner.launcher.importers.bash_expansion import (
    MARKED,
    Expander,
    Node,
    TooLongError,
    plain,
    readable,
    unknown,
)

LARGEST = 1 << 20  # bytes of a script
_MOST_COMMANDS = 20_000
_DEEPEST = 30


@dataclass(frozen=True)
class Command:
    """A command with its words, and the line on which it stands."""

    words: list[str]
    line: int


@dataclass
class Script:
    """What scripts would do, one after the other.

    ``files``: texts that they write, by name. ``directives``: options of sbatch, each with its place.
    ``undecided``: conditions that only a run can tell, each ``file:line`` and text. ``ended``: an ``exit``.
    """

    commands: list[Command] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    directives: dict[str, tuple[str, str]] = field(default_factory=dict)
    undecided: list[tuple[str, str]] = field(default_factory=list)
    ended: tuple[str, str] | None = None


def read(texts: Sequence[tuple[str, str]], given: dict[str, str]) -> Script:
    """Follow scripts, (name as shown, text) each, in one shell that starts with the variables ``given``.

    SpecError for scripts that cannot be followed.
    """
    found = Script()
    shell = _Shell(found, given)
    for shown, text in texts:
        shell.shown = shown
        try:
            shell.follow(text)
        except _EndError:
            break
        except (TooLongError, RecursionError):
            what = "is too deeply nested, or a text in it grows without end"
            raise SpecError([Violation("", None, what, "give the training command alone", shown)]) from None
    return found


class _EndError(Exception):
    """The script ends."""


class _Shell(Branches):
    """Statements, in methods named after tree-sitter's nodes."""

    def __init__(self, found: Script, given: dict[str, str]) -> None:
        self.found, self.shown = found, ""
        self.words = Expander()
        self.words.variables |= given
        self.given = given
        self.functions: dict[str, Node] = {}
        self.depth = 0
        self.redirected = False

    def follow(self, text: str) -> None:
        self._read_directives(text)
        tree = _parsed(text)
        if tree.has_error and (line := _error(tree)):
            self.leave(line, text.splitlines()[line - 1].strip())
        if tree.type == "ERROR" or not tree.named_children and text.strip():
            what = "is not a bash script that can be read"
            raise SpecError([Violation("", None, what, "give the training command alone", self.shown)])
        self.each(tree.children)

    def _read_directives(self, text: str) -> None:
        for name, value, line in sbatch.directives(text):
            self.found.directives.setdefault(name, (value, f"{self.shown}:{line}"))
        self._know()

    def _direct(self, words: Sequence[str], line: int) -> None:
        for name, value in sbatch.options(words):
            self.found.directives[name] = (value, f"{self.shown}:{line}")
        self._know()

    def _know(self) -> None:
        known = {name: value for name, (value, _) in self.found.directives.items()}
        self.words.variables = {**sbatch.variables(known), **self.words.variables}

    def each(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            self.run(node)

    def run(self, node: Node) -> bool | None:
        """Follow one statement; whether it succeeds, None if that is not known."""
        self.depth += 1
        if self.depth > _DEEPEST * 10:
            raise RecursionError
        try:
            action = getattr(self, f"_{node.type}", None)
            return action(node) if action else None
        finally:
            self.depth -= 1

    def _variable_assignment(self, node: Node) -> bool:
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        key = name.text.decode()
        adds = any(child.type == "+=" for child in node.children)
        if name.type == "subscript":
            self.words.variables.pop(name.named_children[0].text.decode(), None)
        elif value is None:
            self.words.variables[key] = self._old(key) if adds else ""
        elif value.type == "array":
            more = [
                word
                for part in value.named_children
                if part.type != "comment"
                for word in self.words.words(part)
            ]
            old = self.words.variables.get(key, []) if adds else []
            self.words.variables[key] = [*([old] if isinstance(old, str) else old), *more]
        else:
            self.words.variables[key] = (self._old(key) if adds else "") + self.words.text(value)
        return True

    def _old(self, key: str) -> str:
        old = self.words.variables.get(key, "")
        return old if isinstance(old, str) else " ".join(old)

    def _variable_assignments(self, node: Node) -> None:
        self.each(node.named_children)

    def _declaration_command(self, node: Node) -> bool:
        self.each([child for child in node.named_children if child.type == "variable_assignment"])
        return True

    def _unset_command(self, node: Node) -> bool:
        for child in node.named_children:
            self.words.variables.pop(child.text.decode(), None)
        return True

    def _command(self, node: Node) -> bool | None:
        children = node.named_children
        assigned = [child for child in children if child.type == "variable_assignment"]
        parts = [child for child in children if not child.type.endswith(("assignment", "redirect"))]
        words: list[str] = []
        for part in parts:
            inner = part.named_children if part.type == "command_name" else [part]
            words += [word for child in inner for word in self.words.words(child)]
        self.each(assigned)
        if not words:
            return True
        return self._start(words, node.start_point[0] + 1)

    def _start(self, words: list[str], line: int) -> bool | None:
        name, rest = words[0], words[1:]
        place = f"{self.shown}:{line}"
        if name in ("exit", "return"):
            self.found.ended = (place, " ".join(words)) if name == "exit" else self.found.ended
            raise _EndError
        if name in ("read", "mapfile", "readarray", "getopts"):
            self.words.variables |= {word: unknown(f"${word}") for word in rest if word.isidentifier()}
        if name in (".", "source") and rest:
            self._source(rest[0], place)
            return True
        if name in ("echo", "printf") and not self.redirected:
            return True
        if name in ("set", "shift") or name in ("true", "false", ":"):
            return None if name in ("set", "shift") else name != "false"
        if name in self.functions and self.depth < _DEEPEST:
            return self._call(name, rest)
        if name == "sbatch" and len(rest) and rest[-1] != self.shown and self.depth < _DEEPEST:
            self._direct(rest[:-1], line)
            self._source(rest[-1], place)
            return True
        if (inner := _inner(words)) is not None and self.depth < _DEEPEST:
            self.each(_parsed(self._without_marks(inner), line).children)
        self.found.commands.append(Command(words, line))
        if len(self.found.commands) > _MOST_COMMANDS:
            raise TooLongError
        return True

    def _source(self, name: str, place: str) -> None:
        """Follow another script, if it lies where this one says, or beside this one."""
        value = plain(name)
        beside = Path(self.shown).parent / Path(readable(name)).name
        candidates = [beside] if value is None else [Path(value), beside]
        for path in candidates:
            try:
                text = read_plain(path, LARGEST).decode("utf-8", errors="replace")
            except (OSError, ValueError):
                continue
            before, self.shown = self.shown, str(path)
            self._read_directives(text)
            try:
                return self.each(_parsed(text).children) if self.depth < _DEEPEST else None
            finally:
                self.shown = before
        self.found.undecided.append((place, f"source {readable(name)}"))
        return None

    def _without_marks(self, text: str) -> str:
        """A text for bash again; marks in it become variables, because they may hold anything."""
        marks = [found[0] for found in MARKED.finditer(text)]
        names = [f"_mark_{self.depth}_{number}" for number in range(len(marks))]
        self.words.variables |= dict(zip(names, marks, strict=True))
        rest = iter(names)
        return MARKED.sub(lambda _: f"${{{next(rest)}}}", text)

    def _call(self, name: str, rest: list[str]) -> bool | None:
        before, self.words.positional = self.words.positional, rest
        try:
            return self.run(self.functions[name])
        except _EndError:
            if self.found.ended:
                raise
            return None
        finally:
            self.words.positional = before

    def _function_definition(self, node: Node) -> bool:
        self.functions[node.child_by_field_name("name").text.decode()] = node.child_by_field_name("body")
        return True

    def _compound_statement(self, node: Node) -> bool | None:
        """Braces, or arithmetic in double parentheses."""
        inner = node.named_children
        if node.children[0].type == "((":
            value = self.words.number(inner[0]) if len(inner) == 1 else None
            return None if value is None else value != 0
        self.each(inner)
        return None

    _subshell = _do_group = _program = _compound_statement

    def _pipeline(self, node: Node) -> None:
        self.each(node.named_children)

    def _negated_command(self, node: Node) -> bool | None:
        found = self.run(node.named_children[0])
        return None if found is None else not found

    def _test_command(self, node: Node) -> bool | None:
        return decide(node, self.words)

    def _list(self, node: Node) -> bool | None:
        """``a && b``: commands are taken to succeed."""
        left, right = node.named_children[0], node.named_children[-1]
        needs = any(child.type == "&&" for child in node.children)
        first = self.run(left)
        if first is None:
            self._undecided(left)
            return None
        return self.run(right) if first is needs else first

    def _redirected_statement(self, node: Node) -> bool | None:
        """A command whose output goes to a file: what ``cat`` and ``echo`` write is kept."""
        body, name, text = node.child_by_field_name("body"), None, None
        for child in node.children:
            here = child.type == "heredoc_redirect"
            text = self._heredoc(child) if here else text
            for part in child.children if here else [child]:
                if part.type == "file_redirect" and part.children[0].type[0] == ">":
                    target = part.child_by_field_name("destination")
                    name = name if target is None else self.words.text(target)
        starts, self.redirected = len(self.found.commands), name is not None
        found = self.run(body) if body is not None else True
        self.redirected = False
        if len(self.found.commands) == starts + 1 and self.found.commands[starts].words[0] == "echo":
            text = " ".join(self.found.commands.pop().words[1:]) + "\n"
        if name is not None and text is not None:
            self.found.files[name] = text
        return found

    def leave(self, line: int, text: str) -> None:
        place = (f"{self.shown}:{line}", text)
        if place not in self.found.undecided:  # a loop comes by again
            self.found.undecided.append(place)

    def _heredoc(self, node: Node) -> str | None:
        start = next((child for child in node.children if child.type == "heredoc_start"), None)
        body = next((child for child in node.children if child.type == "heredoc_body"), None)
        if start is None or body is None:
            return None
        quoted = start.text[:1] in (b"'", b'"', b"\\")
        return str(body.text.decode("utf-8", errors="replace")) if quoted else self.words.text(body)


def _parsed(text: str, line: int = 1) -> Node:
    """The tree of a text; its first line counts as ``line``."""
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    return Parser(Language(tree_sitter_bash.language())).parse(("\n" * (line - 1) + text).encode()).root_node


def _error(tree: Node) -> int | None:
    """The line of the first part of a tree that is not bash."""
    rest = [tree]
    while rest:
        node = rest.pop()
        if node.type == "ERROR" or node.is_missing:
            return int(node.start_point[0]) + 1
        rest += [child for child in reversed(node.children) if child.has_error or child.is_missing]
    return None


def _inner(words: Sequence[str]) -> str | None:
    """The command line in ``bash -c LINE`` or ``eval WORDS``."""
    if words[0] == "eval":
        return " ".join(words[1:])
    for shell, option, line in zip(words, words[1:], words[2:], strict=False):
        if shell.rpartition("/")[2] in ("bash", "sh", "zsh") and re.fullmatch(r"-[a-z]*c", option):
            return line
    return None
