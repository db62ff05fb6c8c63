"""The optimizer and its schedule."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from frontrunner.configs.types import (
    Count,
    Frozen,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Probability,
    derived,
    say,
)


class OptimizerSpec(Frozen):
    """AdamW with warm-up, decay and clipping."""

    name: Literal["adamw"] = "adamw"
    """Name of the optimizer."""
    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate, reached after the warm-up."""
    min_learning_rate: NonNegativeFloat = Field(
        default_factory=derived(lambda rate: 0.1 * rate, "learning_rate")
    )
    """Learning rate at the end of the decay (default: 0.1 * learning_rate)."""
    betas: Annotated[
        tuple[Probability, Probability],
        Strict(False),
        say("must be two numbers, each at least 0 and below 1", "write two, for example [0.9, 0.95]"),
    ] = (0.9, 0.95)
    """Decay rates of the first and second moments."""
    epsilon: PositiveFloat = 1e-8
    """Added to the square root of the second moment."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay; biases and norms are not decayed."""
    clip: NonNegativeFloat = 1.0
    """Maximum global gradient norm; 0: no clipping."""
    warmup_steps: Count = 0
    """Steps in which the learning rate rises linearly to learning_rate."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay from learning_rate to min_learning_rate after the warm-up; constant: no decay."""
    decay_steps: PositiveInt | None = None
    """Step at which min_learning_rate is reached, including the warm-up; null: training.steps."""
