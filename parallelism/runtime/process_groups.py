"""The communicators of one rank, created from its layout's groups.

Only members take part in creating a group, so start-up time does not grow with the number of ranks.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.process_groups_config import ProcessGroupCollection
from torch._C._distributed_c10d import TCPStore
from torch.distributed.constants import default_pg_timeout

from frontrunner.parallelism.layout import Coordinates, Layout, Position
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.megatron_inside import make_memory_buffer

Group = Any  # torch.distributed.ProcessGroup, whose stubs miss rank() and size()


@dataclass(frozen=True)
class ProcessGroups:
    """One rank's place in the layout and its communicators, named as in :class:`Groups`.

    Each hop of the sharding engine has its own communicator, even if the ranks coincide. Hops overlap, and
    the next collective is issued when the previous one completes, at a moment that differs between ranks.
    ``block_hops``, ``network_hops`` and ``replica_hops`` are the groups of each reduction in order.
    """

    layout: Layout
    rank: int
    coordinates: Coordinates
    position: Position
    tensor: Group
    data: Group
    pipeline: Group
    embedding: Group
    key_value: Group
    itself: Group
    world: Group
    weights: Group
    secondary: Group
    node_hop: Group
    network_hop: Group
    replicas: Group
    block_hops: tuple[Group, ...]
    network_hops: tuple[Group, ...]
    replica_hops: tuple[Group, ...]

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


def initialize(layout: Layout, rendezvous: Rendezvous, device: torch.device) -> ProcessGroups:
    """Join the world and create this rank's groups; collective over all ranks."""
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        **_meeting_place(rendezvous),
        world_size=rendezvous.world_size,
        rank=rendezvous.rank,
        device_id=device if device.type == "cuda" else None,
    )
    rank = rendezvous.rank
    ranks = layout.groups(rank)
    shared: dict[tuple[int, ...], Group] = {tuple(range(layout.world_size)): dist.group.WORLD}

    def join(members: tuple[int, ...]) -> Group:
        if members not in shared:
            shared[members] = _make(members)
        return shared[members]

    itself = join((rank,))

    def own(members: tuple[int, ...]) -> Group:
        return _make(members) if len(members) > 1 else itself

    def hops(members: tuple[int, ...]) -> tuple[Group, ...]:
        return tuple(own(hop) for hop in layout.hops(members, rank))

    make_memory_buffer()
    coordinates = layout.coordinates(rank)
    return ProcessGroups(
        layout=layout,
        rank=rank,
        coordinates=coordinates,
        position=layout.position(coordinates.data),
        tensor=join(ranks.tensor),
        data=join(ranks.data),
        pipeline=join(ranks.pipeline),
        embedding=join(ranks.embedding),
        key_value=join(ranks.key_value),
        itself=itself,
        world=dist.group.WORLD,
        weights=own(ranks.weights),
        secondary=own(ranks.secondary) if layout.secondary < layout.weights else itself,
        node_hop=own(ranks.node_hop),
        network_hop=own(ranks.network_hop),
        replicas=own(ranks.replicas),
        block_hops=hops(ranks.gradients),
        network_hops=hops(ranks.network_hop),
        replica_hops=hops(ranks.replicas),
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


def _make(members: tuple[int, ...]) -> Group:
    return dist.new_group(list(members), use_local_synchronization=True)
