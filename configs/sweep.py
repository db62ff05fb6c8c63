"""Sweep files: a base run, a search space, an objective and a budget."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Field, field_validator

from frontrunner.configs.slurm import Duration
from frontrunner.configs.types import Frozen, Name, PositiveFloat, PositiveInt, Probability, say

Scalar: TypeAlias = str | int | float | bool | None
Choice = Annotated[Scalar, say("must be one value: text, a number, true, false or null", "write one value")]
Sampler = Literal["guided", "tpe", "gp", "random", "grid"]
#: In addition to the keys of a run file: accumulation, which determines the global batch size.
ACCUMULATION = "grad_accum_steps"
#: Keys that a trial sets itself, and why they cannot vary.
OWN_KEYS = {
    "name": "trials are numbered",
    "training.steps": "`steps` sets the steps of a trial",
    "training.tokens": "`steps` sets the steps of a trial",
}
#: Maximum number of combinations to enumerate.
MOST_POINTS = 100_000
#: Figures of the records that can be the objective, and whether more is better.
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
    """Vary the key only if other keys of the space have these values; otherwise use the base's value."""

    @property
    def count(self) -> int:
        """Number of values, without listing them."""
        if self.choices is not None:
            return len(self.choices)
        if self.first is None or self.to is None:
            return 0
        return max(0, (self.to - self.first) // self.step + 1)

    def values(self) -> list[Scalar]:
        """All values, in the order given; empty if neither form is complete."""
        if self.choices is not None:
            return list(self.choices)
        if self.first is None or self.to is None:
            return []
        return list(range(self.first, self.to + 1, self.step))


class BudgetSpec(Frozen):
    """Budget of a sweep: no new trial starts once one of these is used up."""

    trials: PositiveInt = 30
    """Layouts to try, including failures."""
    node_hours: PositiveFloat | None = None
    """Total node-hours of all trials; null: no limit."""
    wall_time: Duration | None = None
    """Time since the first start, for example 12h; null: no limit."""
    jobs: PositiveInt = 1
    """Concurrent trials under Slurm; local trials run one after another."""


class SweepSpec(Frozen):
    """A sweep file, in full."""

    name: Name
    """Display name and name of the trials' folder (default: the file's name)."""
    base: Annotated[str, Field(min_length=1)]
    """A run file or preset; a path is relative to the sweep file."""
    space: dict[str, AxisSpec]
    """Keys to vary, each with its values."""
    objective: Objective = "tokens_per_s_per_device"
    """Figure to optimise; step_time_s is minimised, the others are maximised."""
    budget: BudgetSpec = Field(default_factory=BudgetSpec)
    """Limits on trials, time and node-hours."""
    steps: PositiveInt = 10
    """Steps per trial."""
    trial_time: Duration = "30m"
    """Wall time limit of one trial."""
    sampler: Sampler = "guided"
    """guided: the planner's best first, then a search on its error; tpe, gp, random, grid: from Optuna."""
    early_stop: Probability = 0.5
    """End a trial whose first steps reach less than this fraction of the best; 0: never."""
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """Maximum restarts of a trial after node failures."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler."""

    @field_validator("space", mode="before")
    @classmethod
    def _lists_are_choices(cls, space: Any) -> Any:
        if not isinstance(space, dict):
            return space
        return {key: {"choices": axis} if isinstance(axis, list) else axis for key, axis in space.items()}
