"""Random bits flipped in a rank's state and messages while it trains, and whether they are found."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime import transport
from frontrunner.parallelism.runtime.rank_trainer import StepResult
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.trainer import Trainer
from frontrunner.run_folder.endings import Corrupted
from support.runs import train_run
from support.training import Patterns, make_trainer

#: Where a bit is flipped; ``gathered weights in use`` and ``reduced gradient`` change after they arrived.
PLACES = (
    "weight replica",
    "master weights",
    "first moments",
    "second moments",
    "gathered weights message",
    "updated weights message",
    "gradient message",
    "gathered weights in use",
    "reduced gradient",
)


class Flip(NamedTuple):
    """One flip on ``rank``; ``message`` is what was found, None if nothing was."""

    place: str
    rank: int
    message: str | None
    named: int | None


def flip_bit(tensor: torch.Tensor, chance: random.Random) -> None:
    """Flip one random bit of a contiguous tensor."""
    flat = tensor.detach().view(-1).view(torch.uint8)
    flat[chance.randrange(flat.numel())] ^= 1 << chance.randrange(8)


def flips(rendezvous: Rendezvous, spec: RunSpec, places: tuple[str, ...], each: int, seed: int) -> list[Flip]:
    """Flip ``each`` bits per place, one at a time, each in two steps of a clean state; what came of each.

    Places that the layout does not have are skipped.
    """
    trainer, data = make_trainer(rendezvous, spec), Patterns(spec)
    trainer.step(0, data)
    trainer.settle()
    clean, found = _copy(trainer), []
    for place in places:
        for number in range(each):
            chance = random.Random(f"{seed} {place} {number}")
            rank = chance.randrange(rendezvous.world_size)
            flip = _flip(trainer, place, chance if rank == rendezvous.rank else None)
            if flip is None:
                break
            error = _two_steps(trainer, data, flip)
            found.append(Flip(place, rank, str(error) if error else None, error.rank if error else None))
            _restore(trainer, clean)
    dist.destroy_process_group()
    return found


def flipped_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, rank: int, after: int) -> str:
    """One rank of a run in which a bit of a first moment of ``rank`` flips after step ``after``."""
    update = Trainer.update

    def spoilt(self: Trainer, number: int, loss: torch.Tensor) -> StepResult:
        result = update(self, number, loss)
        if rendezvous.rank == rank and number + 1 == after:
            flip_bit(self.optimizer.moments[0][0], random.Random(1))
        return result

    Trainer.update = spoilt  # type: ignore[method-assign]
    return train_run(rendezvous, spec, run_dir)


def costs(
    rendezvous: Rendezvous, spec: RunSpec, everies: tuple[int, ...], rounds: int, steps: int
) -> tuple[dict[int, list[float]], float]:
    """Processor time of a step verified every so many steps, divided by that without just before and after.

    Also the median seconds of a step without. Processor time, because other programs on the machine change it
    less than the clock's.
    """
    trainer, data = make_trainer(rendezvous, spec), Patterns(spec)
    number = 0

    def seconds(every: int) -> float:
        nonlocal number
        trainer.verifier.every = every
        trainer.verifier.restart()
        start = time.process_time()
        for _ in range(steps):
            trainer.step(number, data)
            number += 1
        return (time.process_time() - start) / steps

    seconds(0)
    ratios: dict[int, list[float]] = {every: [] for every in everies}
    plain: list[float] = []
    for _ in range(rounds):
        for every in everies:
            before, with_, after = seconds(0), seconds(every), seconds(0)
            plain += [before, after]
            ratios[every].append(2 * with_ / (before + after))
    trainer.settle()
    dist.destroy_process_group()
    return ratios, statistics.median(plain)


def faulty_device_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, rank: int, fault: str) -> str:
    """One rank of a run in which the device of ``rank`` has a ``fault``."""
    if rendezvous.rank == rank and fault == "memory":
        fill = torch.Tensor.fill_

        def forgetting(self: torch.Tensor, value: Any) -> torch.Tensor:
            fill(self, value)
            if self.dtype == torch.int64 and self.numel() > 1 << 20:
                self[12345] ^= 1 << 17
            return self

        torch.Tensor.fill_ = forgetting  # type: ignore[method-assign,assignment]
    elif rendezvous.rank == rank:
        matmul, calls = torch.matmul, 0

        def wrong(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            product = matmul(a, b)
            if fault == "always" or fault == "now and then" and calls == 2:
                product[3, 5] += 1
            if fault == "same sum":
                product[3, 5] += 64
                product[4, 5] -= 64
            return product

        torch.matmul = wrong  # type: ignore[assignment]
    return train_run(rendezvous, spec, run_dir)


def _two_steps(trainer: Trainer, data: Any, flip: Callable[[], Any]) -> Corrupted | None:
    try:
        with flip():
            for number in (1, 2):
                trainer.step(number, data)
    except Corrupted as error:
        return error
    return None


def _flip(trainer: Trainer, place: str, chance: random.Random | None) -> Callable[[], Any] | None:
    """What to do around two steps: flip a bit on this rank, or nothing if ``chance`` is None."""
    layout, units = trainer.groups.layout, trainer.engine.units
    between: dict[str, Callable[[ShardUnit], torch.Tensor]] = {
        "weight replica": lambda unit: unit.rows,
        "master weights": lambda unit: unit.master,
        "first moments": lambda unit: trainer.optimizer.moments[units.index(unit)][0],
        "second moments": lambda unit: trainer.optimizer.moments[units.index(unit)][1],
    }
    if place in between:
        return lambda: _now(chance, lambda: between[place](chance.choice(units)))  # type: ignore[union-attr]
    if place == "gradient message" and layout.data > 1:
        return lambda: _in_message(dist, "all_to_all_single", chance, lambda _: True)
    if place == "gathered weights message" and layout.weights > 1:
        return lambda: _in_message(transport, "_all_gather", chance, lambda g: g is trainer.groups.weights)
    if place == "updated weights message" and layout.optimizer > layout.weights:
        hops = (trainer.groups.network_hop, trainer.groups.node_hop)
        return lambda: _in_message(transport, "_all_gather", chance, lambda g: g in hops)
    if place == "gathered weights in use" and layout.weights > 1:
        return lambda: _after(trainer.engine.gatherer, "finish", chance, lambda args: args[0].full)
    if place == "reduced gradient":

        def own(_: Any) -> torch.Tensor:
            assert chance is not None
            return chance.choice(units).own_gradients

        return lambda: _after(trainer.engine, "finish_gradients", chance, own)
    return None


@contextmanager
def _now(chance: random.Random | None, tensor: Callable[[], torch.Tensor]) -> Any:
    if chance is not None:
        flip_bit(tensor(), chance)
    yield


@contextmanager
def _after(owner: Any, name: str, chance: random.Random | None, tensor: Callable[..., torch.Tensor]) -> Any:
    """Flip a bit after the third call of a method that leaves something there, or a single one's first."""
    method, calls = getattr(owner, name), 0
    wanted = 3 if name == "finish" else 1

    def spoilt(*args: Any) -> None:
        nonlocal calls
        method(*args)
        calls += 1
        if calls == wanted and chance is not None:
            flip_bit(tensor(args), chance)

    setattr(owner, name, spoilt)
    try:
        yield
    finally:
        setattr(owner, name, method)


class _Spoilt:
    """A started collective that flips a bit in what arrives."""

    def __init__(self, work: Any, flip: Callable[[], None]) -> None:
        self.work = work
        self.flip = flip

    def is_completed(self) -> Any:
        return self.work.is_completed()

    def wait(self) -> None:
        self.work.wait()
        self.flip()


@contextmanager
def _in_message(owner: Any, name: str, chance: random.Random | None, wanted: Callable[[Any], bool]) -> Any:
    """Flip a bit in one of the first messages that a function of ``owner`` receives in a wanted group."""
    function, left = getattr(owner, name), chance.randrange(6) if chance is not None else -1

    def spoilt(output: torch.Tensor, source: torch.Tensor, group: Any, async_op: bool = False) -> Any:
        nonlocal left
        work = function(output, source, group=group, async_op=async_op)
        if not async_op or output.dtype == torch.int64 or not wanted(group):
            return work
        left -= 1
        if left != -1 or chance is None:
            return work
        return _Spoilt(work, lambda: flip_bit(output, chance))

    setattr(owner, name, spoilt)
    try:
        yield
    finally:
        setattr(owner, name, function)


def _tensors(trainer: Trainer) -> list[torch.Tensor]:
    units = trainer.engine.units
    held = [t for unit in units for t in (unit.rows, unit.master)]
    steps = [state["step"] for state in trainer.optimizer.adamw.state.values()]  # type: ignore[union-attr]
    return [*held, *(moment for pair in trainer.optimizer.moments for moment in pair), *steps]


def _copy(trainer: Trainer) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in _tensors(trainer)]


def _restore(trainer: Trainer, clean: list[torch.Tensor]) -> None:
    """Back to the state of ``clean``, and to a verifier that knows nothing yet of a fault."""
    trainer.engine.transport.ledger = None
    trainer.settle()
    trainer.engine.release()
    for tensor, values in zip(_tensors(trainer), clean, strict=True):
        tensor.copy_(values)
    trainer.verifier.restart()
