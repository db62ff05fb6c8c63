"""What ranks do in tests: a few steps of a run, and what came of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.experts.load import Balance
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.rank_trainer import StepResult
from frontrunner.parallelism.runtime.sharding.engine import ShardingEngine
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.trainer import Trainer
from support.mutations import EXPERT_MUTATIONS, MUTATIONS


class Curve(NamedTuple):
    losses: list[float]
    norms: list[float]
    skipped: list[bool]
    bytes_held: dict[str, int]
    sent: dict[str, int]
    balances: list[Balance | None]


class Patterns:
    """Samples with something to learn: arithmetic sequences modulo the vocabulary."""

    def __init__(self, spec: RunSpec) -> None:
        self.length = spec.training.seq_len + 1
        self.vocab = spec.model.vocab_size

    def __getitem__(self, number: int) -> Any:
        start, stride = np.random.default_rng(number).integers(1, self.vocab, size=2)
        return (start + stride * np.arange(self.length)) % self.vocab


def make_trainer(rendezvous: Rendezvous, spec: RunSpec) -> Trainer:
    device = select_device("cpu", rendezvous.local_rank)
    return Trainer(spec, initialize(Layout.from_spec(spec), rendezvous, device), device)


def curve(rendezvous: Rendezvous, spec: RunSpec, mutation: str | None = None) -> Curve:
    """Train all steps of ``spec``, with a fault put in if one is named."""
    if mutation is not None:
        (MUTATIONS | EXPERT_MUTATIONS)[mutation]()
    trainer = make_trainer(rendezvous, spec)
    data = Patterns(spec)
    losses, norms, skipped, balances = [], [], [], []
    for number in range(spec.training.steps):
        loss, result, _ = trainer.step(number, data)
        balances.append(trainer.balance())
        losses.append(loss)
        norms.append(result.gradient_norm)
        skipped.append(result.skipped)
    trainer.settle()
    found = Curve(losses, norms, skipped, trainer.optimizer.bytes_held(), trainer.sent, balances)
    dist.destroy_process_group()
    return found


def checksum(rendezvous: Rendezvous, spec: RunSpec) -> float:
    trainer = make_trainer(rendezvous, spec)
    dist.destroy_process_group()
    return float(sum(unit.master.double().sum().item() for unit in trainer.engine.units))


def with_bad_gradient(rendezvous: Rendezvous, spec: RunSpec, value: float) -> list[tuple[bool, float, float]]:
    """Two steps, in the first of which one rank's gradient holds ``value``.

    (skipped, loss scale after, sum of weights) of each.
    """
    trainer = make_trainer(rendezvous, spec)
    reducer, data, seen = trainer.engine.reducer, Patterns(spec), []
    collect = reducer.collect

    def spoil(unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
        spoilt = number == 0 and rendezvous.rank == 3 and key == "decoder.layers.0.input_layernorm.bias"
        collect(unit, key, torch.full_like(gradient, value) if spoilt else gradient)

    reducer.collect = spoil  # type: ignore[method-assign]
    for number in range(2):
        _, result, _ = trainer.step(number, data)
        checksum = sum(unit.master.double().sum().item() for unit in trainer.engine.units)
        seen.append((result.skipped, trainer.optimizer.loss_scale.value, checksum))
    dist.destroy_process_group()
    return seen


def masks(rendezvous: Rendezvous, spec: RunSpec) -> tuple[list[float], list[float]]:
    """What this rank would drop next outside and inside the model-parallel fork."""
    make_trainer(rendezvous, spec)
    outside = torch.rand(8).tolist()
    with get_cuda_rng_tracker().fork():
        inside = torch.rand(8).tolist()
    dist.destroy_process_group()
    return outside, inside


def gathered_units(rendezvous: Rendezvous, spec: RunSpec) -> tuple[int, list[str]]:
    """The most units that were gathered or on their way at once in a step, and those left after it."""
    trainer = make_trainer(rendezvous, spec)
    units, most = trainer.engine.units, 0
    allocate = ShardUnit.allocate

    def counted(unit: ShardUnit) -> None:
        nonlocal most
        allocate(unit)
        most = max(most, sum(u.full.untyped_storage().nbytes() > 0 for u in units))

    ShardUnit.allocate = counted  # type: ignore[method-assign,assignment]
    trainer.step(0, Patterns(spec))
    dist.destroy_process_group()
    return most, [unit.name for unit in units if unit.full.untyped_storage().nbytes()]


def reductions_at_once(rendezvous: Rendezvous, spec: RunSpec) -> int:
    """The most units whose gradients were on their way at once in a step, where nothing arrives by itself."""
    trainer = make_trainer(rendezvous, spec)
    stream, most = trainer.engine.reducer.block_stream, 0
    submit = stream.submit

    def counted(job: Any) -> Any:
        nonlocal most
        handle = submit(job)
        most = max(most, len(stream.queue))
        return handle

    stream.submit = counted  # type: ignore[method-assign]
    stream.advance = lambda: None  # type: ignore[method-assign]
    trainer.step(0, Patterns(spec))
    dist.destroy_process_group()
    return most


def gathered_weights(rendezvous: Rendezvous, spec: RunSpec) -> list[list[float]]:
    """Each unit as this rank computes with it after the last step."""
    trainer = make_trainer(rendezvous, spec)
    for number in range(spec.training.steps):
        trainer.step(number, Patterns(spec))
    found, gatherer = [], trainer.engine.gatherer
    for unit in trainer.engine.units:
        gatherer.start(unit, backward=False)
        gatherer.finish(unit)
        found.append(unit.full[: unit.numel].tolist())
    dist.destroy_process_group()
    return found


def without_a_gradient(rendezvous: Rendezvous, spec: RunSpec) -> list[float]:
    """Losses of a run in which one bias gets no gradient in every second step."""
    trainer = make_trainer(rendezvous, spec)
    data, collect = Patterns(spec), ShardingEngine._collect
    number = 0

    def skipping(engine: Any, unit: Any, key: str, parameter: Any, chunk: Any) -> None:
        if number % 2 and key.endswith("layers.1.mlp.linear_fc1.bias"):
            parameter.grad = None
            return
        collect(engine, unit, key, parameter, chunk)

    ShardingEngine._collect = skipping  # type: ignore[method-assign,assignment]
    losses = []
    for number in range(spec.training.steps):
        losses.append(trainer.step(number, data)[0])
    dist.destroy_process_group()
    return losses


def reduced_gradients(rendezvous: Rendezvous, spec: RunSpec) -> list[float]:
    """This rank's optimizer shards of the first step's summed gradient, without what pads them."""
    trainer = make_trainer(rendezvous, spec)
    found: list[float] = []
    units = trainer.engine.units

    def keep(number: int, loss: torch.Tensor, updated: object = None) -> StepResult:
        for unit in units:
            for run in unit.runs(lambda parameter: True):
                found.extend(unit.own_gradients[run].tolist())
        return StepResult(0.0, skipped=True)

    trainer.optimizer.step = keep  # type: ignore[method-assign]
    trainer.step(0, Patterns(spec))
    dist.destroy_process_group()
    return found
