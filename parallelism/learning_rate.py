"""The learning rate of a step."""

from __future__ import annotations

import math

from frontrunner.configs.optimizer import OptimizerSpec


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 0): linear warm-up, then decay to the minimum."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    if spec.decay == "constant":
        return spec.learning_rate
    end = spec.decay_steps or steps
    progress = min(1.0, (step - spec.warmup_steps) / max(1, end - spec.warmup_steps))
    share = 1 - progress if spec.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return spec.min_learning_rate + (spec.learning_rate - spec.min_learning_rate) * share
