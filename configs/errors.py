"""The one exception for invalid requests.

A wrong request (a misspelt key, a degree that does not divide, a missing file) raises
:class:`SpecError`. It carries every violation found, each with its location and one fix. The command
line prints them and exits with code 2. Any other exception that escapes is a bug.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

LONGEST_VALUE = 60


@dataclass(frozen=True)
class Violation:
    """One problem with a request.

    ``path`` is the dotted key (``layout.tensor``) and ``value`` is what the user wrote (None: nothing).
    ``constraint`` states the rule, with both numbers. ``fix`` is one thing to do. ``file`` and ``line`` are
    None if the value did not come from a file. ``others`` states the same rule at each other key that it
    involves (path, constraint, fix); :func:`places.place` chooses the one that the user wrote.
    """

    path: str
    value: object
    constraint: str
    fix: str
    file: str | None = None
    line: int | None = None
    others: tuple[tuple[str, str, str], ...] = field(default=(), compare=False, repr=False)

    def at(self, others: Mapping[str, str]) -> Violation:
        """The same rule also stated at other keys: their constraints by dotted path. The fix is the same."""
        fix = self.fix
        if fix.startswith("use "):
            fix = f"set {self.path} to {fix.removeprefix('use ')}"
        return replace(self, others=tuple((path, said, fix) for path, said in others.items()))

    def fields(self) -> dict[str, object]:
        """The fields of a violation whose place is known, for files and ``--json``."""
        own = ("path", "value", "constraint", "fix", "file", "line")
        return {name: getattr(self, name) for name in own}

    def __str__(self) -> str:
        place = "" if self.file is None else f"{self.file}:{self.line} " if self.line else f"{self.file}: "
        shown = "" if self.value is None else show_value(self.value)
        subject = " = ".join(part for part in (self.path, shown) if part)
        return f"{place}{subject}{': ' if subject else ''}{self.constraint}; {self.fix}"


class SpecError(Exception):
    """An invalid request; ``violations`` is never empty."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        if not self.violations:
            raise ValueError("SpecError needs at least one violation")
        super().__init__("\n".join(str(v) for v in self.violations))


def show_value(value: object) -> str:
    """The value as YAML, on one line and truncated."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except ValueError:  # integers with thousands of digits, lone surrogates
        text = ascii(value) if isinstance(value, str) else "a value that cannot be displayed"
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
