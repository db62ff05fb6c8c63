"""What a run saves, what it watches for, and how often its machine fails."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from frontrunner.configs.types import Frozen, PositiveFloat, PositiveInt, say


class CheckpointSpec(Frozen):
    """When checkpoints are written, and which are kept.

    With neither interval none is written while all is well; a run that is asked to stop always writes one.
    """

    every_steps: PositiveInt | None = None
    """Steps between checkpoints; with an interval the last step has one, too."""
    every_minutes: Annotated[
        Literal["auto"] | PositiveFloat | None,
        say("must be a number of minutes or auto", "write minutes, as in 30, or auto"),
    ] = None
    """Minutes between checkpoints; auto: by what one costs and how often the machine fails (Young-Daly)."""
    keep: PositiveInt = 2
    """The newest ones that are kept."""
    keep_every: PositiveInt | None = None
    """Keep for good those after every so many steps, too."""
    background: bool = True
    """Write while training goes on; costs a copy of the optimizer shard in host memory."""
    start_from: Annotated[str, Field(min_length=1)] | None = None
    """Weights at step 0: a checkpoint or a run folder, relative to the folder that the command runs in."""

    @property
    def periodic(self) -> bool:
        return self.every_steps is not None or self.every_minutes is not None


class WatchSpec(Frozen):
    """What ends a run that goes wrong without an error."""

    hang_after_s: PositiveFloat = 600.0
    """A rank that neither sends, receives nor comes to a step for so long ends the run."""
    stop_after_bad_steps: PositiveInt = 20
    """Steps in a row without a finite loss and gradient (float16 starts with some while its scale falls)."""


class ReliabilitySpec(Frozen):
    """What the planner and automatic checkpoints need to know of a machine."""

    node_mtbf_s: PositiveFloat
    """Mean time between failures of one node that end a job; n nodes fail n times as often."""
    write_bytes_per_s_per_node: PositiveFloat
    """To the file system, all nodes writing at once."""
