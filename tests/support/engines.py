"""What ranks of any engine compute, for tests."""

from __future__ import annotations

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.engines import make_trainer
from frontrunner.parallelism.runtime.process_groups import initialize
from support.training import Patterns


def train_with_engine(rendezvous: Rendezvous, spec: RunSpec) -> tuple[list[float], list[float], float]:
    """Losses and gradient norms of all steps, and a validation's loss after them."""
    device = select_device("cpu", rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device, data=spec.engine != "native")
    trainer = make_trainer(spec, groups, device)
    data = Patterns(spec)
    losses, norms = [], []
    for number in range(spec.training.steps):
        loss, result, _ = trainer.step(number, data)
        losses.append(loss)
        norms.append(result.gradient_norm)
    validation = trainer.validate(data, spec.training.global_batch_size)
    trainer.settle()
    dist.destroy_process_group()
    return losses, norms, validation
