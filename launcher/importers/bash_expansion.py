"""Expands words of a bash script without running anything.

What a script does not set itself expands to a mark, :func:`unset` or :func:`unknown`, that stays in the text:
whoever reads the text can tell that the value is not known, and of what.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any

Node = Any
"""A node of tree-sitter."""

#: Around the name of a variable that is not set, or of something that only a run of the script can tell.
UNSET, UNKNOWN = "\ue000", "\ue001"
_BLANK = "\ue002"  # in a mark, which is one word
MARKED = re.compile(f"{UNSET}([^{UNSET}]*){UNSET}|{UNKNOWN}([^{UNKNOWN}]*){UNKNOWN}")
_LONGEST = 1 << 20
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: int(a / b) if abs(a) < 2**53 else a // b,
    "%": lambda a, b: a - b * int(a / b),
    "<": lambda a, b: int(a < b),
    "<=": lambda a, b: int(a <= b),
    ">": lambda a, b: int(a > b),
    ">=": lambda a, b: int(a >= b),
    "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "||": lambda a, b: int(bool(a) or bool(b)),
}


class TooLongError(Exception):
    """Text that doubles until it fills the memory."""


def unset(name: str) -> str:
    return f"{UNSET}{name}{UNSET}"


def unknown(what: str) -> str:
    return f"{UNKNOWN}{_BLANK.join(readable(what).split())[:60]}{UNKNOWN}"


def readable(text: str) -> str:
    """Marks as the script writes them: ``$NAME``, or the command."""
    return MARKED.sub(_shown, text).replace(_BLANK, " ")


def _shown(mark: re.Match[str]) -> str:
    return f"${mark[1]}" if mark[1] is not None else mark[2]


def plain(text: str) -> str | None:
    """Text as it is where nobody sets the variables that the script does not; None if it is not known."""
    return None if UNKNOWN in text else MARKED.sub("", text)


class Expander:
    """Words of a script with these variables: text, or a list of words."""

    def __init__(self) -> None:
        self.variables: dict[str, str | list[str]] = {}
        self.positional: list[str] = []

    def words(self, node: Node) -> list[str]:
        """The words that a node of a command or an array becomes."""
        kind = node.type
        if kind == "string":
            inner = [child for child in node.named_children if child.type != "string_content"]
            if len(inner) == 1 and len(node.text) == len(inner[0].text) + 2:
                whole = self._all_words(inner[0])
                if whole is not None:
                    return whole
            return [self.text(node)]
        if kind in ("simple_expansion", "expansion", "command_substitution"):
            whole = self._all_words(node)
            return self.text(node).split() if whole is None else whole
        if kind == "concatenation":
            return self._joined(node)
        return [self.text(node)]

    def text(self, node: Node) -> str:
        """A node as one text, quotes removed."""
        found = self._text(node)
        if len(found) > _LONGEST:
            raise TooLongError
        return found

    def _text(self, node: Node) -> str:
        kind, own = node.type, _own(node)
        if kind == "raw_string":
            return own[1:-1]
        if kind == "ansi_c_string":
            return own[2:-1].replace("\\n", "\n").replace("\\t", "\t")
        if kind in ("string", "heredoc_body"):
            return self._quoted(node, 1 if kind == "string" else 0)
        if kind == "simple_expansion":
            return self._value(own[1:])
        if kind == "expansion":
            return self._expansion(node)
        if kind == "arithmetic_expansion":
            number = self.number(node)
            return unknown(own) if number is None else str(number)
        if kind in ("command_substitution", "process_substitution"):
            return unknown(own)
        if kind == "concatenation":
            return "".join(self.text(child) for child in node.children)
        if kind == "array":
            return " ".join(self.text(child) for child in node.named_children if child.type != "comment")
        return re.sub(r"\\(\n|.)", lambda found: found[1].strip("\n"), own, flags=re.DOTALL)

    def _quoted(self, node: Node, edge: int) -> str:
        """Literal text, which no child covers in places, with the expansions in it."""
        parts, position = [], node.start_byte + edge
        for child in node.named_children:
            if child.type in ("string_content", "heredoc_content"):
                continue
            # The grammar counts blanks and ends of lines before an expansion to it.
            start = child.start_byte + len(child.text) - len(_own(child).encode())
            parts += [self._literal(node, position, start), self.text(child)]
            position = child.end_byte
        return "".join([*parts, self._literal(node, position, node.end_byte - edge)])

    def _literal(self, node: Node, start: int, end: int) -> str:
        own = node.text[start - node.start_byte : end - node.start_byte].decode("utf-8", errors="replace")
        return re.sub(r"\\([\n$`\"\\])", lambda found: found[1].strip("\n"), own)

    def _joined(self, node: Node) -> list[str]:
        """Words of parts without blanks between them: the last of one and the first of the next are one."""
        found = [""]
        for child in node.children:
            more = self.words(child)
            if more:
                found = [*found[:-1], found[-1] + more[0], *more[1:]]
        return [] if found == [""] else found

    def _value(self, name: str) -> str:
        if name in ("@", "*"):
            return " ".join(self.positional)
        if name.isdigit() and name != "0":
            index = int(name) - 1
            return self.positional[index] if index < len(self.positional) else unset(name)
        value = self.variables.get(name)
        if isinstance(value, list):
            return value[0] if value else unset(name)
        return unset(name) if value is None else value

    def _all_words(self, node: Node) -> list[str] | None:
        """The words of ``${NAME[@]}`` or ``$@``; None for anything else."""
        own = _own(node)
        if own in ("$@", "$*", "${@}"):
            return list(self.positional)
        found = re.fullmatch(r"\$\{(\w+)\[[@*]\]\}", own)
        value = self.variables.get(found[1]) if found else None
        if found is None or value is None:
            return None if found is None else [unset(found[1])]
        return value if isinstance(value, list) else [value]

    def _expansion(self, node: Node) -> str:
        """``${NAME}`` and its forms; forms that cut the text are not known."""
        own = _own(node)
        found = re.match(r"\$\{(#?)(\w+)(?:\[([^\]]*)\])?(:?[-=+?])?", own, re.DOTALL)
        if found is None:
            return unknown(own)
        length, name, index, operator = found.groups()
        value = self._element(name, index) if index else self._value(name)
        if length:
            size = self.variables.get(name, "")
            return str(len(size)) if isinstance(size, list) or UNKNOWN not in size else unknown(own)
        if operator is None:
            return value if own[found.end() :] == "}" else self._cut(value, own, node)
        rest = self._operand(node)
        missing = UNSET in value and MARKED.sub("", value) == "" or operator[0] == ":" and value == ""
        if operator[-1] == "+":
            return "" if missing else rest
        if missing and operator[-1] == "=":
            self.variables[name] = rest
        return value if not missing else unset(name) if operator[-1] == "?" else rest

    def _cut(self, value: str, own: str, node: Node) -> str:
        """``${NAME//a/b}``, ``${NAME%b}`` and the like of a known text."""
        found = re.match(r"\$\{\w+(?:\[[^\]]*\])?(//?|%%?|##?|\^\^|,,)(.*)\}$", own, re.DOTALL)
        if found is None or MARKED.search(value):
            return value if found and UNKNOWN not in value else unknown(own)
        operator, rest = found.groups()
        if operator in ("^^", ",,"):
            return value.upper() if operator == "^^" else value.lower()
        pattern, _, replacement = rest.partition("/") if operator[0] == "/" else (rest, "", "")
        if re.search(r"[$`'\"\\]", rest):
            return unknown(own)
        return _without(value, operator, pattern, replacement)

    def _operand(self, node: Node) -> str:
        """What follows the operator of ``${NAME:-...}``."""
        named = [
            child for child in node.children if child.type in (":-", "-", ":=", "=", ":+", "+", ":?", "?")
        ]
        after = named[0].end_byte if named else node.end_byte - 1
        return "".join(self.text(child) for child in node.named_children if child.start_byte >= after)

    def _element(self, name: str, index: str) -> str:
        value = self.variables.get(name)
        if isinstance(value, list) and index in ("@", "*"):
            return " ".join(value)
        if isinstance(value, list) and index.isdigit():
            return value[int(index)] if int(index) < len(value) else unset(name)
        return self._value(name) if index in ("@", "*", "0") else unknown(f"${{{name}[{index}]}}")

    def number(self, node: Node) -> int | None:
        """The value of an arithmetic expression; None if it is not known."""
        kind = node.type
        if kind in ("arithmetic_expansion", "parenthesized_expression"):
            inner = node.named_children
            return self.number(inner[0]) if len(inner) == 1 else None
        if kind == "binary_expression":
            left, right = (self.number(node.child_by_field_name(side)) for side in ("left", "right"))
            return _computed(node.child_by_field_name("operator").text.decode(), left, right)
        if kind == "unary_expression":
            inside = self.number(node.named_children[-1])
            sign = node.children[0].text.decode()
            return None if inside is None or sign not in ("-", "+") else inside * (-1 if sign == "-" else 1)
        text = self._value(node.text.decode()) if kind in ("variable_name", "word") else self.text(node)
        return integer(text)


def _own(node: Node) -> str:
    """The text of a node; of an expansion, without what stands before it."""
    text: str = node.text.decode("utf-8", errors="replace")
    if node.type in ("simple_expansion", "expansion", "arithmetic_expansion", "command_substitution"):
        return re.sub(r"^[\s\\]+(?=[$`])", "", text)
    return text


def _without(value: str, operator: str, pattern: str, replacement: str) -> str:
    """A text without what a glob matches at its start (#) or end (%); replaced once (/) or always (//)."""
    if not pattern:
        return value
    if operator[0] == "/" and not re.search(r"[*?\[]", pattern):
        return value.replace(pattern, replacement, -1 if operator == "//" else 1)
    greedy = len(operator) == 2
    sizes = range(len(value) + 1)
    if operator[0] == "/":
        return unknown(f"{value}{operator}{pattern}")
    for size in reversed(sizes) if greedy else sizes:
        part = value[:size] if operator[0] == "#" else value[len(value) - size :]
        if matches(part, pattern):
            return value[size:] if operator[0] == "#" else value[: len(value) - size]
    return value


def _computed(operator: str, left: int | None, right: int | None) -> int | None:
    if left is None or right is None or max(abs(left), abs(right)) >= 2**63:
        return None
    try:
        return _ARITHMETIC[operator](left, right)
    except (KeyError, ZeroDivisionError):
        return None


def integer(text: str) -> int | None:
    """A number as bash reads it: 0 for nothing."""
    value = plain(text)
    if value is None or not re.fullmatch(r"\s*[-+]?\d{0,18}\s*", value):
        return None
    return int(value) if value.strip() else 0


def matches(text: str, pattern: str) -> bool:
    """A glob of ``case`` and ``[[``."""
    return fnmatch.fnmatchcase(text, pattern)
