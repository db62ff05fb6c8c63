"""The communicators of one rank, made from its layout's groups.

Groups with the same ranks share one communicator (each costs hundreds of MiB of device memory on RCCL),
and only the members of a group take part in making it, so that start-up does not grow with the world.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.process_groups_config import ProcessGroupCollection

from frontrunner.parallelism.layout import Coordinates, Groups, Layout, Position
from frontrunner.parallelism.rendezvous import Rendezvous

Group = Any  # torch.distributed.ProcessGroup, whose stubs miss rank() and size()


@dataclass(frozen=True)
class ProcessGroups:
    """One rank's place in the layout and its communicators, named as in :class:`Groups`."""

    layout: Layout
    rank: int
    coordinates: Coordinates
    position: Position
    ranks: Groups
    tensor: Group
    data: Group
    pipeline: Group
    weights: Group
    gradients: Group
    node_hop: Group
    network_hop: Group
    replicas: Group
    embedding: Group
    itself: Group
    world: Group

    def for_megatron(self) -> ProcessGroupCollection:
        """The groups that megatron-core's model and schedules ask for."""
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
    """Join the world and make this rank's groups; collective over all ranks."""
    dist.init_process_group(
        backend="nccl" if device.type == "cuda" else "gloo",
        init_method=f"tcp://{rendezvous.master_addr}:{rendezvous.master_port}",
        world_size=rendezvous.world_size,
        rank=rendezvous.rank,
        timeout=timedelta(minutes=int(os.environ.get("FRONTRUNNER_TIMEOUT_MINUTES", "30"))),
        device_id=device if device.type == "cuda" else None,
    )
    rank = rendezvous.rank
    groups = layout.groups(rank)
    made: dict[tuple[int, ...], Group] = {tuple(range(layout.world_size)): dist.group.WORLD}

    def group(ranks: tuple[int, ...]) -> Group:
        if ranks not in made:
            made[ranks] = dist.new_group(list(ranks), use_local_synchronization=True)
        return made[ranks]

    # Sequence-parallel layers gather into a buffer that megatron-core makes with its own groups.
    parallel_state.destroy_global_memory_buffer()
    parallel_state._set_global_memory_buffer()
    coordinates = layout.coordinates(rank)
    return ProcessGroups(
        layout=layout,
        rank=rank,
        coordinates=coordinates,
        position=layout.position(coordinates.data),
        ranks=groups,
        itself=group((rank,)),
        world=dist.group.WORLD,
        **{name: group(ranks) for name, ranks in groups._asdict().items()},
    )
