"""What ranks do in tests of the order of collectives: two steps of a tiny model, and what they issued."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.trainer import Trainer
from support.issue_order import Call, Recorder
from support.stream_runs import train
from support.stream_watch import Watch
from support.virtual_streams import VirtualStreams


class Way(NamedTuple):
    """How ranks run: on a GPU's ``streams``, or as on CPU, each rank with luck of its own by ``seed``."""

    streams: bool
    seed: int | None = None


def issued(
    rendezvous: Rendezvous, spec: RunSpec, ways: list[Way], folder: str | None = None
) -> list[list[Call]]:
    """What this rank issues in all steps of ``spec``, in each way."""
    device = select_device("cpu", rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device)
    found = []
    for number, way in enumerate(ways):
        streams = VirtualStreams() if way.streams else None
        trainer = Trainer(spec, groups, device, streams)
        saves = Path(folder, str(number)) if folder else None
        seed = None if way.seed is None else 1000 * way.seed + rendezvous.rank
        with (
            Watch(streams) if streams else nullcontext(),
            Recorder(seed) as recorder,  # inside, to see a call when it is made
        ):
            train(trainer, saves)
        found.append(recorder.calls)
    dist.destroy_process_group()
    return found


def groups_made(rendezvous: Rendezvous, spec: RunSpec) -> tuple[int, int]:
    """How many groups of more than one rank this rank has, and how many of them the engine names."""
    layout = Layout.from_spec(spec)
    groups = initialize(layout, rendezvous, select_device("cpu", rendezvous.local_rank))
    named = set()
    for value in vars(groups).values():
        named |= {each for each in (value if isinstance(value, tuple) else (value,)) if hasattr(each, "size")}
    made = [group for group in dist.distributed_c10d._world.pg_map if group.size() > 1]
    dist.barrier()
    dist.destroy_process_group()
    return len(made), sum(group.size() > 1 for group in named)
