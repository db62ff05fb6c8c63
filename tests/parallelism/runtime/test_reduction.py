"""Where a rank waits while gradients are on their way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from frontrunner.parallelism.runtime.sharding.reduction import Reducer
from frontrunner.parallelism.runtime.streams import ProgramOrder
from frontrunner.parallelism.runtime.wire.formats import wire_format


class Work:
    """A collective that is complete when asked, if ``early``, or else once it was waited for."""

    def __init__(self, early: bool) -> None:
        self.complete = early

    def is_completed(self) -> bool:
        return self.complete

    def wait(self) -> None:
        assert self.complete


class Transport:
    """Two ranks of a package, and two replicas of it, of which only this rank exists."""

    def __init__(self, early: dict[str, bool]) -> None:
        self.early = early
        self.waits = 0
        self.lanes: list[Any] = []

    def exchange(self, received: Any, chunks: Any, group: Any) -> Work:
        received.copy_(chunks)
        return Work(self.early[group.name])

    def all_gather(self, output: Any, shard: Any, group: Any) -> Work:
        output.view(group.size(), -1).copy_(shard)
        return Work(self.early[group.name])

    def wait(self, work: Work, meanwhile: Any) -> None:
        self.waits += 1
        work.complete = True


def group(name: str, size: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, size=lambda: size)


def shard_groups() -> Any:
    package, pair = group("package", 2), group("replicas", 2)
    groups: Any = SimpleNamespace(
        layout=SimpleNamespace(weights=2, gradients=2),
        block_hops=(package,),
        network_hop=group("network", 1),
        replicas=pair,
        replica_hops=(pair,),
    )
    groups.experts = groups
    return groups


def reducer(transport: Transport, groups: Any) -> Reducer:
    wire = wire_format("float32", 256)
    made: Any = transport
    return Reducer(groups, made, ProgramOrder(), torch.float32, wire, wire)


class ShardUnit:
    """Eight values, four of which this rank keeps."""

    def __init__(self, groups: Any) -> None:
        self.groups = groups
        self.gradients = self.own_gradients = torch.zeros(4)
        self.residual = None
        self.geometry = SimpleNamespace(padded=8)
        self.offsets = {"weight": 0}


@pytest.mark.parametrize("package", [False, True])
@pytest.mark.parametrize("replicas", [False, True])
def test_only_places_of_the_program_wait(package: bool, replicas: bool) -> None:
    """Not what goes on by chance: ranks that wait at moments of their own may wait in a circle for ever."""
    transport = Transport({"package": package, "replicas": replicas})
    groups = shard_groups()
    sending = reducer(transport, groups)
    units: list[Any] = [ShardUnit(groups) for _ in range(10)]
    for number, each in enumerate(units):
        before = transport.waits
        sending.advance()
        assert transport.waits == before
        sending.collect(each, "weight", torch.full((8,), 1.0 + number))
        sending.within_block(each, last=True)
        # Of all that left, four units at most are on their way, whatever has arrived early.
        assert all(float(u.gradients[0]) == 4 * (1 + n) for n, u in enumerate(units[: max(0, number - 3)]))
    sending.join()
    assert [float(each.gradients[0]) for each in units] == [4.0 * (1 + n) for n in range(10)]
