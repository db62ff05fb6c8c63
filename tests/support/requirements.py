"""What pyproject.toml and constraints.txt ask for, and what is installed here because of it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support.tree import ROOT, pyproject


def required(*extras: str) -> list[Requirement]:
    """The core's requirements and those of ``extras``, as far as they apply to this Python."""
    project = pyproject()["project"]
    lines = [
        *project["dependencies"],
        *(line for x in extras for line in project["optional-dependencies"][x]),
    ]
    return [requirement for requirement in map(Requirement, lines) if _applies(requirement, ("",))]


def pins() -> dict[str, Requirement]:
    """The pins of constraints.txt that apply to this Python, by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in found if _applies(pin, ("",))}


def installed(requirements: Iterable[Requirement]) -> set[str]:
    """Names of the installed distributions that these bring, with all that those require in turn."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    todo = list(requirements)
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        found.add(name)
        todo += [r for r in map(Requirement, lines) if _applies(r, extras or ("",))]
    return found


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)
