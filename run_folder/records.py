"""The records of a run: one JSON object per line of ``records.jsonl``, of the kinds below.

The first line is the header. Steps, validations, checkpoints and warnings follow in order, then a summary if
the run finished. A continued run appends another header; its records replace earlier ones of the same steps.
NaN and infinities are null, because JSON does not have them. Records of other versions may lack keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12


class Header(TypedDict):
    """The run and its hosts: the first record of each start."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["header"]
    spec: dict[str, Any]
    """The run file, resolved."""
    layout: dict[str, int]
    """Degrees of the layout, in ranks."""
    versions: dict[str, str | None]
    """Versions of Python and packages; null: not installed."""
    git_commit: str | None
    """The commit of frontrunner's own work tree; null: installed from a package."""
    host_names: list[str]
    """Hosts of all ranks."""
    device: str
    """torch's name for the device of rank 0."""
    time: float
    """Seconds since the epoch."""
    continued_from: int
    """Steps taken before this start; 0 for a new run."""


class Step(TypedDict):
    """One optimizer step. Times are those of rank 0, in seconds."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["step"]
    step: int
    """Number of the step, from 1."""
    loss: float | None
    """Mean loss of the step's tokens, over all ranks; null: not finite."""
    learning_rate: float
    """The rate that the step used."""
    gradient_norm: float | None
    """Global norm of the gradient before clipping; null: not finite."""
    step_time_s: float
    """Seconds of the whole step."""
    forward_backward_s: float
    """Seconds in forward and backward of all micro-batches."""
    communication_exposed_s: float | None
    """Seconds of waiting for communication; null: unknown for this engine."""
    optimizer_s: float
    """Seconds in the optimizer step."""
    tokens_per_s_per_device: float
    """Tokens of the step, divided by its time and the devices."""
    model_flops_per_s_per_device: float
    """FLOP/s of the model, without recomputation."""
    hardware_flops_per_s_per_device: float
    """FLOP/s with recomputation."""
    mfu: float | None
    """Model FLOP/s as a share of the device's peak; null: peak unknown."""
    skipped: bool
    """The step was skipped because the loss or gradient was not finite."""
    peak_memory_bytes: int
    """Largest peak memory of any rank so far."""
    bytes_sent: dict[str, float] | None
    """Mean bytes sent per rank over each level in the step; null: unknown for this engine."""
    busy_s: NotRequired[float]
    """Seconds of the step without waiting, averaged over ranks."""
    slowest_rank: NotRequired[int]
    """The rank that worked longest."""
    slowest_busy_s: NotRequired[float]
    """Seconds for which it worked."""
    loss_scale: NotRequired[float]
    """Scale of the loss, with float16 only."""
    aux_loss: NotRequired[float]
    """Load-balancing loss of a mixture of experts before its weight, mean of all layers; 1: even."""
    z_loss: NotRequired[float]
    """Mean squared log-sum-exp of the routers' logits before its weight."""
    expert_load: NotRequired[float]
    """Tokens of the busiest expert, divided by the mean of its layer's; no token is dropped."""
    idle_experts: NotRequired[float]
    """Share of the experts that no token of the step used."""


class Validation(TypedDict):
    """A validation after a step."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["validation"]
    step: int
    """Steps taken before it."""
    loss: float | None
    """Mean loss of the validation tokens."""
    unigram_loss: float | None
    """Loss of a unigram model of the same tokens; null: unknown."""


class Checkpoint(TypedDict):
    """A complete checkpoint on disk."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["checkpoint"]
    step: int
    """Step of the checkpoint."""
    path: str
    """Its folder."""
    write_s: float
    """Seconds from the start of the write until it was on disk."""
    stalled_s: float
    """Seconds for which training waited."""


class Saving(TypedDict):
    """A checkpoint is being written; training may go on meanwhile."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["saving"]
    step: int
    """Step of the checkpoint."""


class Warning(TypedDict):
    """A problem that does not end the run."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["warning"]
    about: str
    """Topic: start, loss, straggler, checkpoint or corruption."""
    step: int
    """Steps taken before it."""
    message: str
    """Message for the user."""


class Stopped(TypedDict):
    """The run stopped on request after a checkpoint, and can be continued."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["stopped"]
    step: int
    """Steps taken."""


class Summary(TypedDict):
    """The run reached its last step."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["summary"]
    steps: int
    """Steps of the whole run."""
    first_validation_loss: float | None
    """Validation loss before the first step; null: no validation."""
    last_validation_loss: float | None
    """Validation loss after the last step."""
    tokens_per_s_per_device: float | None
    """Median over the steady steps of this start."""
    bytes_per_step: dict[str, float] | None
    """Bytes that a rank sent over each level in a step, averaged over ranks and the steps of this start."""
    elapsed_s: float
    """Total seconds of this start."""


class Ended(TypedDict):
    """The run ended before its last step, and not by a request to stop."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["ended"]
    how: Literal["failed", "interrupted"]
    """failed, or interrupted: ended at once by a user."""
    message: str
    """The error in one line; empty if interrupted."""


Record: TypeAlias = Header | Step | Validation | Checkpoint | Saving | Warning | Stopped | Ended | Summary
OnRecord = Callable[[Record], None]

#: Required keys and their types, by kind.
_NEEDED: dict[str, dict[str, type]] = {
    "header": {},
    "step": {"step": int},
    "validation": {"step": int},
    "checkpoint": {"step": int},
    "saving": {"step": int},
    "warning": {},
    "stopped": {"step": int},
    "ended": {"message": str},
    "summary": {},
}


def parse(line: bytes | str) -> Record | None:
    """The record in a line; None if it is truncated, damaged or of an unknown kind."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    if not isinstance(record.get("spec", {}), dict):
        return None
    needed = _NEEDED.get(record["kind"])
    if needed is None or any(type(record.get(key)) is not kind for key, kind in needed.items()):
        return None
    return record  # type: ignore[return-value]
