"""What the log of one run says: its facts, and a table of its steps.

Every importer returns this, whatever the format. Nothing is guessed: None means that the log does not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from frontrunner.analysis.importers.unsupported import Unsupported
from frontrunner.configs.schema import ModelSpec

#: Columns of the table of steps, in SI units. FLOP/s and tokens/s are per device; bytes are what one rank
#: sends in a step. ``printed_flops_per_s`` is what the log prints, in the run's ``flop_convention``.
STEP_SCHEMA: dict[str, pl.DataType] = {
    "step": pl.Int64(),
    "segment": pl.Int32(),
    "step_time_s": pl.Float64(),
    "loss": pl.Float64(),
    "learning_rate": pl.Float64(),
    "gradient_norm": pl.Float64(),
    "loss_scale": pl.Float64(),
    "skipped": pl.Boolean(),
    "global_batch_size": pl.Int64(),
    "seq_len": pl.Int64(),
    "samples_per_s": pl.Float64(),
    "tokens_per_s_per_device": pl.Float64(),
    "printed_flops_per_s": pl.Float64(),
    "forward_backward_s": pl.Float64(),
    "communication_exposed_s": pl.Float64(),
    "optimizer_s": pl.Float64(),
    "busy_s": pl.Float64(),
    "slowest_rank": pl.Int64(),
    "slowest_busy_s": pl.Float64(),
    "peak_memory_bytes": pl.Float64(),
    "bytes_package": pl.Float64(),
    "bytes_node": pl.Float64(),
    "bytes_network": pl.Float64(),
}

#: Times and counts above these are not measurements: a step of four months, 2^53 of anything.
LONGEST_STEP_S = 1e7
LARGEST_COUNT = 2**53


@dataclass(frozen=True)
class StageMemory:
    """Memory of one pipeline stage, in bytes: the maximum over the ranks that reported."""

    stage: int
    allocated_bytes: float | None
    peak_bytes: float
    reserved_bytes: float | None


@dataclass(frozen=True)
class Operation:
    """One kind of communication as one rank logged it over all steps: calls, bytes and seconds."""

    name: str
    calls: int
    bytes: float
    seconds: float


@dataclass
class RunLog:
    """One run. ``layout`` has the keys of a run file's layout, plus ``data`` and ``grad_accum_steps``.

    ``flop_convention`` says what ``printed_flops_per_s`` counts: "model", or "hardware" (with recomputation);
    None if nothing is printed. ``current_segment`` is the first start of the run (from 0) with the layout of
    the last start; earlier steps used another layout. ``lost_lines`` counts lines that should have been read
    but could not. ``unsupported`` is what makes figures unknown. ``not_printed`` has the reason for each
    figure that this format's logs may lack. ``facts`` holds what only some formats give: see the importers.
    ``settings``: the trainer's own, as it printed them at the last start.
    ``spec`` comes from our own header; runs with equal specifications share it, and share one ``spec_key``.
    """

    id: str
    path: str
    format: str
    devices: int | None = None
    nodes: int | None = None
    machine: str | None = None
    machine_reason: str | None = None
    model: ModelSpec | None = None
    layout: dict[str, Any] = field(default_factory=dict)
    global_batch_size: int | None = None
    seq_len: int | None = None
    precision: str | None = None
    flop_convention: str | None = None
    planned_steps: int | None = None
    current_segment: int = 0
    lost_lines: int = 0
    memory: tuple[StageMemory, ...] = ()
    communication: tuple[Operation, ...] = ()
    communication_rank: int | None = None
    events: list[str] = field(default_factory=list)
    unsupported: tuple[Unsupported, ...] = ()
    not_printed: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] | None = None
    spec_key: bytes | None = None


@dataclass
class Collection:
    """Runs, and their steps in one table: :data:`STEP_SCHEMA` plus ``run``, the run's index in ``runs``.

    ``unread`` lists files that hold no run, with the reason.
    """

    runs: list[RunLog]
    steps: pl.DataFrame
    unread: list[tuple[str, str]] = field(default_factory=list)


def step_table(rows: dict[str, list[Any]]) -> pl.DataFrame:
    """A table of steps from columns; missing columns are null. The last record of a step wins."""
    length = len(rows.get("step", ()))
    table = pl.DataFrame(
        {name: rows.get(name, [None] * length) for name in STEP_SCHEMA}, schema=STEP_SCHEMA, strict=False
    )
    return table.unique("step", keep="last", maintain_order=True).sort("step")


def current_segment(cuts: Sequence[object]) -> int:
    """The first start of a run (from 0) since when its layout has not changed."""
    first = len(cuts) - 1
    while first > 0 and cuts[first - 1] == cuts[-1]:
        first -= 1
    return max(first, 0)
