"""Ranks of which one is profiled."""

from __future__ import annotations

from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.runtime.profile import Profile
from support.training import Patterns, make_trainer

REQUEST = ProfileRequest(2, 3, 1)


def profiled(place: Rendezvous, spec: RunSpec, folder: Path, request: ProfileRequest | None) -> bool:
    """Four steps; whether a range was made while none was asked for."""
    trainer = make_trainer(place, spec)
    profile = Profile(request, spec, place.rank, folder, trainer.device)
    data, early = Patterns(spec), False
    for number in range(4):
        with profile.step(number + 1):
            early |= ranges.on() and not (place.rank == REQUEST.rank and number in (1, 2))
            trainer.step(number, data)
    trainer.settle()
    return early
