"""Which steps of a run to profile, and on which rank."""

from __future__ import annotations

import re
from typing import NamedTuple

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec


class ProfileRequest(NamedTuple):
    """Steps ``first`` to ``last``, counted from 1 as in records, on ``rank``."""

    first: int
    last: int
    rank: int

    @property
    def steps(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def parse(steps: str | None, rank: int | None) -> ProfileRequest | None:
    """``5`` or ``5-7``, on rank 0 if none is given; None without steps. SpecError for anything else."""
    if steps is None:
        if rank is not None:
            fix = "name the steps with --profile, or omit it"
            raise SpecError([Violation("--profile-rank", rank, "is of no use without steps", fix)])
        return None
    found = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", steps.strip())
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last:
        constraint = "must be a step or a range of steps, counted from 1"
        raise SpecError([Violation("--profile", steps, constraint, "write it like 5 or 5-7")])
    return ProfileRequest(first, last, rank or 0)


def violations(request: ProfileRequest, spec: RunSpec) -> list[Violation]:
    """What keeps a run from being profiled so."""
    found = []
    steps = spec.training.steps
    if request.last > steps:
        constraint = f"the run has {steps} steps"
        found.append(Violation("--profile", request.steps, constraint, f"use a step up to {steps}"))
    if not 0 <= request.rank < spec.world_size:
        constraint = f"the run has {spec.world_size} ranks"
        fix = f"use a rank from 0 to {spec.world_size - 1}"
        found.append(Violation("--profile-rank", request.rank, constraint, fix))
    if spec.engine != "native":
        constraint = f"names the parts of the native engine, and engine is {spec.engine}"
        found.append(Violation("--profile", request.steps, constraint, "omit it, or set engine to native"))
    return found
