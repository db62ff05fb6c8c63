"""What a sweep file says: a base run, the space around it, what is sought, and what may be spent."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, field_validator

from frontrunner.configs.slurm import Duration
from frontrunner.configs.types import Frozen, Name, PositiveFloat, PositiveInt, Probability, say

Scalar: TypeAlias = str | int | float | bool | None
Choice = Annotated[Scalar, say("must be one value: text, a number, true, false or null", "write it alone")]
Sampler = Literal["guided", "tpe", "gp", "random", "grid"]
#: Beside the keys of a run file: accumulation, from which the global batch size follows.
ACCUMULATION = "grad_accum_steps"
#: Keys that a trial sets itself, and why they cannot vary.
OWN_KEYS = {"name": "trials are numbered", "training.steps": "`steps` says how many a trial takes"}
#: The most combinations that are looked at one by one.
MOST_POINTS = 100_000
#: Records' figures that can be sought, and whether more is better.
OBJECTIVES: dict[str, bool] = {
    "tokens_per_s_per_device": True,
    "model_flops_per_s_per_device": True,
    "hardware_flops_per_s_per_device": True,
    "step_time_s": False,
}
Objective = Literal[
    "tokens_per_s_per_device",
    "model_flops_per_s_per_device",
    "hardware_flops_per_s_per_device",
    "step_time_s",
]


class AxisSpec(Frozen):
    """The values of one key: ``choices``, or the whole numbers ``from`` to ``to`` (included) by ``step``."""

    model_config = ConfigDict(populate_by_name=True)

    choices: list[Choice] | None = None
    """Values of the key, in any order."""
    first: int | None = Field(default=None, alias="from")
    """Smallest whole number of a range."""
    to: int | None = None
    """Largest whole number of a range, included."""
    step: PositiveInt = 1
    """Distance between two numbers of a range."""
    when: dict[str, list[Choice]] = Field(default_factory=dict)
    """The key varies only where other keys of the space have such values; elsewhere the base's holds."""

    @property
    def count(self) -> int:
        """How many values there are, without listing them."""
        if self.choices is not None:
            return len(self.choices)
        if self.first is None or self.to is None:
            return 0
        return max(0, (self.to - self.first) // self.step + 1)

    def values(self) -> list[Scalar]:
        """All values, in the order given; none where neither form is complete."""
        if self.choices is not None:
            return list(self.choices)
        if self.first is None or self.to is None:
            return []
        return list(range(self.first, self.to + 1, self.step))


class BudgetSpec(Frozen):
    """What a sweep may spend: it starts no more trials once any of these is used up."""

    trials: PositiveInt = 30
    """Layouts that are tried, whatever becomes of them."""
    node_hours: PositiveFloat | None = None
    """Nodes times hours of all trials together; null: no such limit."""
    wall_time: Duration | None = None
    """From the first start on, as in 12h."""
    jobs: PositiveInt = 1
    """Trials at once; on one machine they run one after the other."""


class SweepSpec(Frozen):
    """A sweep file, in full."""

    name: Name
    """Name for display and for the folder of trials (default: the file's)."""
    base: Annotated[str, Field(min_length=1)]
    """A run file or preset; the path starts at the sweep file's folder."""
    space: dict[str, AxisSpec]
    """The keys that vary, each with its values."""
    objective: Objective = "tokens_per_s_per_device"
    """Which figure of a trial's records is sought; step_time_s is minimised, the others maximised."""
    budget: BudgetSpec = Field(default_factory=BudgetSpec)
    """What may be spent."""
    steps: PositiveInt = 10
    """Steps of a trial."""
    trial_time: Duration = "30m"
    """Wall time of one trial."""
    sampler: Sampler = "guided"
    """guided: the planner's best first, then a search on its error; tpe, gp, random, grid: Optuna's."""
    early_stop: Probability = 0.5
    """A trial whose first steps are worse than this share of the best is ended; 0: none is."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a trial is started again after a node's failure."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Of the sampler."""

    @field_validator("space", mode="before")
    @classmethod
    def _lists_are_choices(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            return space
        return {key: {"choices": axis} if isinstance(axis, list) else axis for key, axis in space.items()}
