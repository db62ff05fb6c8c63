"""Which versions of Python, torch and megatron-core ranks can use, and whether the installed ones qualify.

Versions are read without importing the packages, so launchers can ask too. A package without version
metadata, for example a checkout on PYTHONPATH, is accepted.
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
    """``newest`` is the newest tested release; None if every new release is expected to work."""

    oldest: Release
    newest: Release | None
    upgrade: str
    downgrade: str = ""

    def __str__(self) -> str:
        """For example "3.11 or newer" or "0.16 to 0.19"."""
        end = "or newer" if self.newest is None else f"to {_text(self.newest)}"
        return f"{_text(self.oldest)} {end}"


@dataclass(frozen=True)
class Unsupported:
    """An unsupported version: refused if ``too_old``, otherwise only untested."""

    name: str
    found: str
    constraint: str
    fix: str
    too_old: bool

    def __str__(self) -> str:
        return f"{self.name} {self.found}: {self.constraint}; {self.fix}"


SUPPORTED = {
    "python": Supported(
        oldest=(3, 11), newest=None, upgrade="create the environment again with a newer Python of the site"
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
    """Raise SpecError with every package in ``names`` that is too old."""
    old = [
        Violation(wrong.name, wrong.found, wrong.constraint, wrong.fix)
        for wrong in unsupported(names)
        if wrong.too_old
    ]
    if old:
        raise SpecError(old)


def unsupported(names: Iterable[str] = tuple(SUPPORTED)) -> Iterator[Unsupported]:
    """Every installed version that is too old, or newer than the tested ones."""
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
            constraint = f"newer than the tested versions, {supported}"
            yield Unsupported(name, found, constraint, supported.downgrade, too_old=False)


def version(name: str) -> str | None:
    """The version of a distribution, or of ``python``; None if unknown."""
    if name == "python":
        return platform.python_version()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _text(release: Release) -> str:
    return ".".join(map(str, release))
