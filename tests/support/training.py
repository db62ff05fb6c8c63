"""What ranks do in tests: a few steps of a run, and what came of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.trainer import Trainer
from support.mutations import MUTATIONS


class Curve(NamedTuple):
    losses: list[float]
    norms: list[float]
    skipped: list[bool]
    bytes_held: dict[str, int]
    sent: dict[str, int]


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
        MUTATIONS[mutation]()
    trainer = make_trainer(rendezvous, spec)
    data = Patterns(spec)
    losses, norms, skipped = [], [], []
    for number in range(spec.training.steps):
        loss, result, _ = trainer.step(number, data)
        losses.append(loss)
        norms.append(result.gradient_norm)
        skipped.append(result.skipped)
    found = Curve(losses, norms, skipped, trainer.optimizer.bytes_held(), trainer.sent)
    dist.destroy_process_group()
    return found
