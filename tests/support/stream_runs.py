"""What ranks do in tests of streams: the same few steps again and again, each time on other streams."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.checkpoint.checkpointer import Checkpointer
from frontrunner.parallelism.runtime.checkpoint.progress import Progress
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.integrity.verifier import Verifier
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.schedule import Schedule
from frontrunner.parallelism.runtime.sharding.reduction import Reducer
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.sharding.weights import Gatherer
from frontrunner.parallelism.runtime.trainer import Trainer
from support.stream_watch import Watch
from support.training import Patterns
from support.virtual_streams import Site, VirtualStreams

_keep_residual = Reducer._keep_residual
_after_update = Verifier.after_update
_forward = Schedule._forward


class Turn(NamedTuple):
    """``seed``: late queues, otherwise clocks; ``drop``: a wait that is left out; ``fault``: of FAULTS.

    ``plain``: no streams.
    """

    seed: int | None = None
    drop: Site | None = None
    fault: str | None = None
    plain: bool = False


class Seen(NamedTuple):
    """``numbers``: losses, gradient norms, sums of weights and checksums of checkpoints."""

    numbers: list[float]
    races: list[str]
    host_waits: Counter[str]
    sites: set[Site]
    ahead: dict[str, int]


def turns(rendezvous: Rendezvous, spec: RunSpec, wanted: list[Turn], folder: str | None = None) -> list[Seen]:
    """Train all steps of ``spec`` from the start in each of the turns; save each in a ``folder``."""
    device = select_device("cpu", rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device)
    found = []
    for number, turn in enumerate(wanted):
        streams = None if turn.plain else VirtualStreams(turn.seed, turn.drop)
        trainer = Trainer(spec, groups, device, streams)
        saves = Path(folder, str(number)) if folder else None
        with FAULTS[turn.fault]() if turn.fault else nullcontext():
            if streams is None:
                found.append(Seen(train(trainer, saves), [], Counter(), set(), {}))
                continue
            with Watch(streams) as watch:
                numbers = train(trainer, saves)
                streams.finish()
        races = sorted(watch.memory.races)
        found.append(Seen(numbers, races, watch.host_waits, streams.sites, streams.ahead))
    dist.destroy_process_group()
    return found


def train(trainer: Trainer, saves: Path | None) -> list[float]:
    spec, data, numbers = trainer.spec, Patterns(trainer.spec), list[float]()
    checkpointer = Checkpointer(spec, saves, trainer) if saves else None
    for number in range(spec.training.steps):
        loss, result, _ = trainer.step(number, data)
        numbers += [loss, result.gradient_norm]
        if checkpointer is not None:
            ended = checkpointer.save(Progress(number + 1, 0, None, 0))
            assert all(written.error is None for written in ended), ended
    trainer.settle()
    with torch.utils._python_dispatch._disable_current_modes():
        numbers += [unit.master.double().sum().item() for unit in trainer.engine.units]
    if checkpointer is not None and saves is not None:
        ended = checkpointer.finish()
        assert all(written.error is None for written in ended), ended
        checkpointer.close()
        dist.barrier()
        files = sorted(saves.rglob(f"rank-{trainer.groups.rank}.bin"))
        assert len(files) == spec.training.steps
        numbers += [zlib.crc32(file.read_bytes()) for file in files]
    return numbers


def _residual_replaced(self: Reducer, unit: ShardUnit, whole: torch.Tensor) -> None:
    """The memory of the first residual goes back to the computing stream while this one reads it."""
    before = unit.residual
    unit.residual = torch.empty_like(whole)
    _keep_residual(self, unit, whole)
    del before


def _checksums_while_updates_travel(self: Verifier, number: int) -> None:
    self._held = self._state()
    _after_update(self, number)


def _positions_copied(self: Schedule, batches: Any, chunk: Any) -> Any:
    self.positions = self.positions.to(torch.device("cpu"))
    return _forward(self, batches, chunk)


#: What the engine did before these tests: the first three race, the last lets the host wait.
FAULTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "the first residual is freed": lambda: patch.object(Reducer, "_keep_residual", _residual_replaced),
    "masters are saved while they travel": lambda: patch.object(
        Gatherer, "settle_masters", lambda gatherer: None
    ),
    "checksums of masters while they travel": lambda: patch.object(
        Verifier, "after_update", _checksums_while_updates_travel
    ),
    "positions are copied in each forward": lambda: patch.object(Schedule, "_forward", _positions_copied),
}
