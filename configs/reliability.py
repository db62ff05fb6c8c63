"""Checkpoints, the watchdog, and the failure rate of a machine."""

from typing import Annotated, Literal

from pydantic import Field

from frontrunner.configs.types import Count, Frozen, PositiveFloat, PositiveInt, say


class CheckpointSpec(Frozen):
    """When checkpoints are written, and which are kept.

    A run also writes one when it is asked to stop. Without either interval, it is auto on machines whose
    failure rate is known.
    """

    at_end: bool = True
    """Write a checkpoint after the last step; without one, the trained weights are lost."""
    every_steps: PositiveInt | None = None
    """Steps between checkpoints."""
    every_minutes: Annotated[
        Literal["auto"] | PositiveFloat | None,
        say("must be a number of minutes or auto", "write minutes, for example 30, or auto"),
    ] = None
    """Minutes between checkpoints; auto: from write time and the machine's failure rate (Young-Daly)."""
    keep: PositiveInt = 2
    """Number of newest checkpoints to keep."""
    keep_every: PositiveInt | None = None
    """Also keep every checkpoint at a multiple of this many steps."""
    background: bool = True
    """Write while training continues; costs a copy of the optimizer shard in host memory."""
    start_from: Annotated[str, Field(min_length=1)] | None = None
    """Initial weights: a checkpoint or a run folder, relative to the working directory."""

    @property
    def periodic(self) -> bool:
        return self.every_steps is not None or self.every_minutes is not None


class WatchSpec(Frozen):
    """What ends a run that hangs, diverges or computes with corrupted data."""

    hang_after_s: PositiveFloat = 600.0
    """End the run if a rank makes no progress for this long: no communication and no step."""
    stop_after_bad_steps: PositiveInt = 20
    """End the run after this many consecutive steps with a non-finite loss or gradient (float16 starts with
    some while its loss scale falls)."""
    verify_every_steps: Count = 10
    """Steps between checks for silent data corruption: messages arrive as they were sent, and copies of
    weights and optimizer state are equal on all ranks. The state is also checked before each checkpoint.
    0: never."""
    self_test: bool = True
    """Test the arithmetic and memory of each device before the run begins."""


class ReliabilitySpec(Frozen):
    """Machine figures for the planner and automatic checkpoints."""

    node_mtbf_s: PositiveFloat
    """Mean time between failures of one node that end a job; n nodes fail n times as often."""
    write_bytes_per_s_per_node: PositiveFloat
    """Write speed to the file system per node, with all nodes writing."""
