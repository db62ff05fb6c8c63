"""Seconds of the collectives of a layout's groups, by size; all groups of one kind work at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.first_day.figures import arrive, joined, publish
from frontrunner.parallelism.runtime.probe import best_s
from frontrunner.parallelism.runtime.process_groups import Group, ProcessGroups
from frontrunner.parallelism.runtime.transport import Transport

NAMES = ("tensor", "pipeline", "weights", "node_hop", "network_hop", "replicas")
SIZES = {"cuda": tuple(2**power for power in range(16, 29, 2)), "cpu": (2**16, 2**20)}


class Ring(NamedTuple):
    """A group of this rank, and the names under which the layout has it."""

    names: list[str]
    group: Group
    ranks: int
    stride: int


def measure(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Measure every group of the layout, and all ranks together; collective."""
    with joined(spec, rendezvous) as (groups, device):
        transport = Transport(groups.layout, groups.rank)
        found = []
        for ring in rings(groups):
            for wanted in SIZES[device.type]:
                size = wanted // (4 * ring.ranks) * 4 * ring.ranks  # whole floats of each rank
                for name, work in _operations(transport, ring, size, device):
                    shown = f"{name} of {size} bytes over {' and '.join(ring.names)}"
                    arrive(run_dir, rendezvous.rank, shown)
                    transport.take()
                    work()
                    sent, _ = transport.take()
                    found.append(
                        {
                            "groups": ring.names,
                            "ranks": ring.ranks,
                            "stride": ring.stride,
                            "operation": name,
                            "bytes": size,
                            "bytes_sent": sum(sent.values()),
                            "seconds": best_s(work, device, dist.barrier),
                        }
                    )
        publish(run_dir, rendezvous.rank, {"device": str(device), "collectives": found})


def rings(groups: ProcessGroups) -> list[Ring]:
    """The groups of several ranks, once each: equal sizes and strides are equal groups on all ranks."""
    layout, rank = groups.layout, groups.rank
    own: dict[str, tuple[Group, tuple[int, ...]]] = {
        name: (getattr(groups, name), getattr(layout.groups(rank), name)) for name in NAMES
    }
    own |= _package(layout, rank)
    own["all devices"] = groups.world, tuple(range(layout.world_size))
    found: dict[tuple[int, int], Ring] = {}
    for name, (group, members) in own.items():
        if group.size() > 1:  # or the layout does not use it
            shape = len(members), members[1] - members[0]
            found.setdefault(shape, Ring([], group, *shape)).names.append(name.replace("_", " "))
    return list(found.values())


def _package(layout: Layout, rank: int) -> dict[str, tuple[Group, tuple[int, ...]]]:
    """The devices of this rank's package, whose ring the machine file has."""
    size = layout.devices_per_package
    if size == 1:
        return {}
    group, _ = dist.new_subgroups(size)
    first = rank - rank % size
    return {"package": (group, tuple(range(first, first + size)))}


def _operations(
    transport: Transport, ring: Ring, size: int, device: torch.device
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The operations that a run sends with; ``size`` is what each rank has in the end, or begins with."""
    each = size // ring.ranks // 4
    whole, shard = torch.ones(each * ring.ranks, device=device), torch.ones(each, device=device)
    rows, received = whole.view(ring.ranks, each), torch.empty(ring.ranks, each, device=device)
    yield "all-gather", lambda: transport.wait(transport.all_gather(whole, shard, ring.group))
    yield "all-to-all", lambda: transport.wait(transport.exchange(received, rows, ring.group))
    yield "all-reduce", lambda: transport.all_reduce(whole, ring.group, dist.ReduceOp.MAX)
