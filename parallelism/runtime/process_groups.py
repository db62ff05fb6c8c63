"""The communicators of one rank, as :mod:`frontrunner.parallelism.communicators` lists them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection
from torch._C._distributed_c10d import TCPStore
from torch.distributed.constants import default_pg_timeout

from frontrunner.parallelism.communicators import ITSELF, OF_EXPERTS, WORLD, communicators
from frontrunner.parallelism.layout import Coordinates, Layout, Position
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.megatron_inside import make_memory_buffer

_HOPS = ("block_hops", "network_hops", "replica_hops", "expert_hops")
Group = Any  # torch.distributed.ProcessGroup, whose stubs miss rank() and size()


@dataclass(frozen=True)
class ShardGroups:
    """A rank's place in the shards of some parameters and the communicators of these shards.

    Names are those of :class:`Groups`. A name that this layout does not use, or only for one rank, has a
    group of this rank alone. ``block_hops``, ``network_hops`` and ``replica_hops`` are the groups of each
    reduction in order.
    """

    layout: Layout
    position: Position
    weights: Group
    secondary: Group
    node_hop: Group
    network_hop: Group
    replicas: Group
    block_hops: tuple[Group, ...]
    network_hops: tuple[Group, ...]
    replica_hops: tuple[Group, ...]


@dataclass(frozen=True)
class ProcessGroups(ShardGroups):
    """One rank's place in the layout and its communicators, named as in :class:`Groups`.

    Several names can have one communicator. ``data`` is ``itself`` in our own engine. ``expert_hops`` are the
    groups through which tokens get to experts, in order. ``experts`` are the shards of experts, which are
    this object if every rank holds all of them.
    """

    rank: int
    coordinates: Coordinates
    tensor: Group
    data: Group
    pipeline: Group
    embedding: Group
    key_value: Group
    itself: Group
    world: Group
    expert_hops: tuple[Group, ...]
    of_experts: ShardGroups | None

    @property
    def experts(self) -> ShardGroups:
        return self.of_experts or self

    def for_megatron(self) -> ProcessGroupCollection:
        """The groups that megatron-core's model and schedules expect."""
        collection = ProcessGroupCollection()
        collection.tp = self.tensor
        collection.pp = self.pipeline
        collection.cp = self.itself
        collection.dp_cp = self.data
        # None: the tied embedding is initialised and reduced by our own sharding engine.
        collection.embd = None
        collection.pos_embd = None
        return collection


def initialize(
    layout: Layout, rendezvous: Rendezvous, device: torch.device, data: bool = False
) -> ProcessGroups:
    """Join the world and create this rank's groups; collective over all ranks.

    ``data``: with a group of all data-parallel ranks, for engines other than ours.
    """
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        **_meeting_place(rendezvous),
        world_size=rendezvous.world_size,
        rank=rendezvous.rank,
        device_id=device if device.type == "cuda" else None,
    )
    rank = rendezvous.rank
    listed = communicators(layout, rank, data)
    make = _split if device.type == "cuda" else _join
    made = [make(ranks, rank, layout.world_size) for ranks in listed.made]
    # NCCL allocates the buffers of a network even for one rank (NVIDIA/nccl#2363).
    itself = dist.new_group([rank], backend="gloo", use_local_synchronization=True)
    special = {WORLD: dist.group.WORLD, ITSELF: itself}
    of = {
        name: tuple(special[index] if index < 0 else made[index] for index in indices)
        for name, indices in listed.of.items()
    }
    make_memory_buffer()
    coordinates = layout.coordinates(rank)

    def fields(names: Iterable[str], prefix: str = "") -> dict[str, Any]:
        """The communicators of these names; hops are one, which may be this rank alone, or two."""
        found: dict[str, Any] = {}
        for name in names:
            first, *others = of[prefix + name]
            hops = (first, *(hop for hop in others if hop is not itself))
            found[name] = hops if name in _HOPS else first
        return found

    inside = [name for name in of if not name.startswith(OF_EXPERTS)]
    shards = [name.removeprefix(OF_EXPERTS) for name in of if name.startswith(OF_EXPERTS)]
    of_experts = None
    if shards:
        view = layout.of_experts()
        of_experts = ShardGroups(view, view.position(coordinates.data), **fields(shards, OF_EXPERTS))
    return ProcessGroups(
        layout=layout,
        rank=rank,
        coordinates=coordinates,
        position=layout.position(coordinates.data),
        itself=itself,
        of_experts=of_experts,
        **fields(inside),
    )


def _meeting_place(rendezvous: Rendezvous) -> dict[str, Any]:
    """Where ranks find each other's addresses, as arguments of ``init_process_group``.

    torch's store listens on all interfaces and asks nobody who they are. If all ranks are on this machine, it
    gets a socket of the loopback interface.
    """
    host, port = rendezvous.master_addr, rendezvous.master_port
    if rendezvous.served or not rendezvous.on_one_machine:
        return {"init_method": f"tcp://{host}:{port}"}
    first = rendezvous.rank == 0
    store = TCPStore(
        host,
        port,
        rendezvous.world_size,
        is_master=first,
        timeout=default_pg_timeout,
        master_listen_fd=_listener(host, port).detach() if first else None,
    )
    return {"store": store}


def _listener(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=4096)


def _join(members: tuple[int, ...] | None, rank: int, world_size: int) -> Group:
    """A group that only its members make."""
    return dist.new_group(list(members), use_local_synchronization=True) if members else None


def _split(members: tuple[int, ...] | None, rank: int, world_size: int) -> Group:
    """A group split from the world: of NCCL, which all ranks must enter, members or not (pytorch#129965).

    Ranks of different groups enter one split together. If a rank names a group without itself, it gets none.
    """
    return dist.split_group(split_ranks=[list(members) if members else [(rank + 1) % world_size]])
