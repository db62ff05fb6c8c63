"""Decides conditions of a bash script, and follows what depends on them.

Known are ``[ a = b ]``, ``[[ a == b* ]]``, comparisons of numbers, ``-z`` and ``-n``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from frontrunner.launcher.importers.bash_expansion import (
    MARKED,
    UNKNOWN,
    Expander,
    Node,
    integer,
    matches,
    plain,
    readable,
)

_NUMBERS: dict[str, Callable[[int, int], bool]] = {
    "-eq": lambda a, b: a == b,
    "-ne": lambda a, b: a != b,
    "-lt": lambda a, b: a < b,
    "-le": lambda a, b: a <= b,
    "-gt": lambda a, b: a > b,
    "-ge": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def decide(node: Node, words: Expander) -> bool | None:
    """Whether a condition holds for a user who sets no variable; None if only a run can tell."""
    kind = node.type
    if kind in ("test_command", "parenthesized_expression"):
        inner = node.named_children
        if kind == "test_command" and node.children[0].type == "((":
            value = words.number(inner[0]) if len(inner) == 1 else None
            return None if value is None else value != 0
        return decide(inner[0], words) if len(inner) == 1 else False if not inner else None
    if kind == "binary_expression":
        return _binary(node, words)
    if kind == "unary_expression":
        return _unary(node, words)
    text = plain(words.text(node))
    return None if text is None else text != ""


def _binary(node: Node, words: Expander) -> bool | None:
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    operator = node.child_by_field_name("operator").text.decode()
    if operator in ("&&", "||", "-a", "-o"):
        first, second = decide(left, words), decide(right, words)
        both = operator in ("&&", "-a")
        if (first is not None and first is not both) or (second is not None and second is not both):
            return not both
        return None if first is None or second is None else both
    if operator in ("=", "==", "!="):
        a, b = plain(words.text(left)), plain(words.text(right))
        if a is None or b is None:
            return None
        same = matches(a, b) if right.type not in ("string", "raw_string") else a == b
        return same if operator != "!=" else not same
    if operator in _NUMBERS:
        one, other = integer(words.text(left)), integer(words.text(right))
        return None if one is None or other is None else _NUMBERS[operator](one, other)
    return _regex(left, right, words) if operator == "=~" else None


def _regex(left: Node, right: Node, words: Expander) -> bool | None:
    a, b = plain(words.text(left)), plain(words.text(right))
    if a is None or b is None or len(a) > 1000 or not re.fullmatch(r"\^?[\w.| ()-]*\$?", b):
        return None
    return re.search(b, a) is not None


def _unary(node: Node, words: Expander) -> bool | None:
    operator = node.children[0].text.decode()
    inside = node.named_children[-1]
    if operator == "-v":
        name: str = inside.text.decode()
        return name in words.variables
    if operator == "!":
        found = decide(inside, words)
        return None if found is None else not found
    if operator in ("-z", "-n"):
        text = words.text(inside)
        if readable(text).startswith("$SLURM_") and UNKNOWN in text:
            return bool(operator == "-n")  # Slurm sets it in every job
        value = plain(text)
        return None if value is None else (value == "") is (operator == "-z")
    return None


class Branches:
    """The statements that choose what runs; in methods named after tree-sitter's nodes."""

    words: Expander

    def run(self, node: Node) -> bool | None:
        """Follow one statement; whether it succeeds, None if that is not known."""
        raise NotImplementedError

    def each(self, nodes: Sequence[Node]) -> None:
        raise NotImplementedError

    def leave(self, line: int, text: str) -> None:
        """Note that what depends on a condition was left out."""
        raise NotImplementedError

    def _if_statement(self, node: Node) -> None:
        self._branch(node)

    def _branch(self, node: Node) -> bool:
        """Run what belongs to the first condition that holds; whether that was settled."""
        conditions = node.children_by_field_name("condition")
        found: bool | None = True
        for condition in conditions:
            found = self.run(condition) if condition.is_named else found
        inside = [child for child in node.named_children if child not in conditions]
        clauses = [child for child in inside if child.type in ("elif_clause", "else_clause")]
        if found is None and conditions:
            self._undecided(conditions[0])
            return True
        if found:
            self.each([child for child in inside if child not in clauses])
            return True
        return any(self._else_clause(clause) for clause in clauses)

    def _else_clause(self, node: Node) -> bool:
        if node.type == "elif_clause":
            first = next(child for child in node.named_children)
            return self._elif(node, first)
        self.each(node.named_children)
        return True

    def _elif(self, node: Node, condition: Node) -> bool:
        found = self.run(condition)
        if found is None:
            self._undecided(condition)
            return True
        if found:
            self.each(node.named_children[1:])
        return found

    def _case_statement(self, node: Node) -> None:
        value = plain(self.words.text(node.child_by_field_name("value")))
        if value is None:
            self._undecided(node.child_by_field_name("value"))
            return
        for item in node.named_children:
            if item.type != "case_item":
                continue
            patterns = item.children_by_field_name("value")
            if any(matches(value, self.words.text(pattern)) for pattern in patterns):
                self.each([child for child in item.named_children if child not in patterns])
                return

    def _for_statement(self, node: Node) -> None:
        name = node.child_by_field_name("variable").text.decode()
        values = [word for part in node.children_by_field_name("value") for word in self.words.words(part)]
        for value in values:
            if MARKED.fullmatch(value) and UNKNOWN not in value:
                continue
            self.words.variables[name] = value
            self.run(node.child_by_field_name("body"))

    def _while_statement(self, node: Node) -> None:
        self._undecided(node)

    _c_style_for_statement = _while_statement

    def _undecided(self, node: Node) -> None:
        first: str = node.text.decode("utf-8", errors="replace").splitlines()[0]
        self.leave(node.start_point[0] + 1, first)
