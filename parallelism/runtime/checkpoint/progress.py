"""How far a run has come."""

from __future__ import annotations

from dataclasses import dataclass

from frontrunner.configs.schema import RunSpec


@dataclass(frozen=True)
class Progress:
    """``step`` steps and ``samples`` sequences of training, and what the loop remembers about them."""

    step: int = 0
    samples: int = 0
    first_validation_loss: float | None = None
    bad_steps: int = 0


def samples_before(spec: RunSpec, progress: Progress, number: int) -> int:
    """The first sample of step ``number`` (from 0) in a run that continues from ``progress``."""
    return progress.samples + (number - progress.step) * spec.training.global_batch_size
