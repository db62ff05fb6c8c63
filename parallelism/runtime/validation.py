"""The validations of a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.data import open_dataset, unigram_loss
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.step import Write


def validation(spec: RunSpec, trainer: RankTrainer, write: Write) -> Callable[[int], float | None]:
    """A function that validates after a given step and records it; it does nothing without samples.

    The number of samples is rounded up to whole global batches, so it is the same in every layout.
    """
    batch = spec.training.global_batch_size
    samples = math.ceil(spec.training.validation_samples / batch) * batch
    if not samples:
        return lambda step: None
    dataset = open_dataset(spec, split="validation")
    unigram = unigram_loss(spec, samples) if trainer.groups.rank == 0 else None

    def validate(step: int) -> float:
        loss = trainer.validate(dataset, samples)
        write("validation", step=step, loss=loss, unigram_loss=unigram)
        return loss

    return validate
