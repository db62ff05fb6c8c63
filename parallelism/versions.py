"""Which Python, torch and megatron-core ranks can run with, and whether those here are among them.

Read from what is installed, without importing it, so that launchers can ask too. A package that leaves no
record of its version, as a checkout on PYTHONPATH does, is taken as it is.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

from frontrunner.configs.errors import SpecError, Violation

Release = tuple[int, int]


@dataclass(frozen=True)
class Supported:
    """``newest`` is the newest release that is tested; None where each new one is expected to work."""

    oldest: Release
    newest: Release | None
    upgrade: str
    downgrade: str = ""

    def __str__(self) -> str:
        """As in "3.11 or newer" and "0.16 to 0.19"."""
        end = "or newer" if self.newest is None else f"to {_text(self.newest)}"
        return f"{_text(self.oldest)} {end}"


@dataclass(frozen=True)
class Unsupported:
    """A version outside what is supported; ``too_old`` ones are refused, the others are only untested."""

    name: str
    found: str
    constraint: str
    fix: str
    too_old: bool

    def __str__(self) -> str:
        return f"{self.name} {self.found}: {self.constraint}; {self.fix}"


SUPPORTED = {
    "python": Supported(
        oldest=(3, 11), newest=None, upgrade="make the environment again with a newer Python of the site"
    ),
    "torch": Supported(
        oldest=(2, 10), newest=None, upgrade="pip install 'torch>=2.10', or load a newer module of the site"
    ),
    "megatron-core": Supported(
        oldest=(0, 16),
        newest=(0, 19),
        upgrade="pip install 'megatron-core>=0.16.1'",
        downgrade="if anything fails, pip install 'megatron-core<0.20'",
    ),
}


def check(names: Iterable[str] = tuple(SUPPORTED)) -> None:
    """Raise SpecError with those of ``names`` that are too old."""
    old = [
        Violation(wrong.name, wrong.found, wrong.constraint, wrong.fix)
        for wrong in unsupported(names)
        if wrong.too_old
    ]
    if old:
        raise SpecError(old)


def unsupported(names: Iterable[str] = tuple(SUPPORTED)) -> Iterator[Unsupported]:
    """Each version here that is too old, or newer than what was tested."""
    for name in names:
        supported, found = SUPPORTED[name], version(name)
        release = re.match(r"v?(\d+)\.(\d+)", found or "")
        if found is None or release is None:
            continue
        here = (int(release[1]), int(release[2]))
        if here < supported.oldest:
            constraint = f"frontrunner needs {supported}"
            yield Unsupported(name, found, constraint, supported.upgrade, too_old=True)
        elif supported.newest is not None and here > supported.newest:
            constraint = f"newer than what frontrunner is tested with, which is {supported}"
            yield Unsupported(name, found, constraint, supported.downgrade, too_old=False)


def version(name: str) -> str | None:
    """The version of a distribution, or of ``python``; None where nothing tells."""
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(release: Release) -> str:
    return ".".join(map(str, release))
