"""What ranks do in tests of streams: the same few steps again and again, each time on other streams."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.trainer import Trainer
from support.stream_watch import Watch
from support.training import Patterns
from support.virtual_streams import Site, VirtualStreams


class Turn(NamedTuple):
    """``seed``: late queues, otherwise clocks; ``drop``: a wait that is left out. ``plain``: no streams."""

    seed: int | None = None
    drop: Site | None = None
    plain: bool = False


class Seen(NamedTuple):
    numbers: list[float]
    races: list[str]
    host_waits: Counter[str]
    sites: set[Site]


def turns(rendezvous: Rendezvous, spec: RunSpec, wanted: list[Turn]) -> list[Seen]:
    """Train all steps of ``spec`` from the start in each of the turns."""
    device = select_device("cpu", rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device)
    data = Patterns(spec)
    found = []
    for turn in wanted:
        streams = None if turn.plain else VirtualStreams(turn.seed, turn.drop)
        trainer = Trainer(spec, groups, device, streams)
        watch: Any = nullcontext() if streams is None else Watch(streams)
        numbers = []
        with watch:
            for number in range(spec.training.steps):
                loss, result, _ = trainer.step(number, data)
                numbers += [loss, result.gradient_norm]
            trainer.settle()
            if streams is not None:
                streams.finish()
        numbers += [unit.master.double().sum().item() for unit in trainer.engine.units]
        if streams is None:
            found.append(Seen(numbers, [], Counter(), set()))
        else:
            found.append(Seen(numbers, sorted(watch.memory.races), watch.host_waits, streams.sites))
    dist.destroy_process_group()
    return found
