"""What a run records: one JSON object a line of ``records.jsonl``, of one of the kinds below.

The first line is the header, then come steps, validations, checkpoints and warnings in the order in which
they happened, and a summary where the run came to its end. A run that is continued appends another header:
what follows takes the place of earlier records of the same steps. Numbers that JSON does not have (NaN,
infinities) are null. Records of other versions may lack keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12


class Header(TypedDict):
    """What ran, and where: the first record of each start."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["header"]
    spec: dict[str, Any]
    """The run file, resolved."""
    layout: dict[str, int]
    """Degrees of the layout as numbers of ranks."""
    versions: dict[str, str | None]
    """Versions of Python and the packages; null: not installed."""
    git_commit: str | None
    """The commit of frontrunner's own work tree; null: installed from a package."""
    host_names: list[str]
    """Hosts of all ranks."""
    device: str
    """What torch calls the device of rank 0."""
    time: float
    """Seconds since the epoch."""
    continued_from: int
    """Steps that had been taken before this start; 0 for a new run."""


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
    """Seconds of forward and backward of all micro-batches."""
    communication_exposed_s: float | None
    """Seconds of waiting for communication; null: not known for this engine."""
    optimizer_s: float
    """Seconds of the optimizer's step."""
    tokens_per_s_per_device: float
    """Tokens of the step, divided by its time and the devices."""
    model_flops_per_s_per_device: float
    """FLOP/s of the model, without recomputation."""
    hardware_flops_per_s_per_device: float
    """FLOP/s with recomputation."""
    mfu: float | None
    """Model FLOP/s as a share of the device's peak; null: peak unknown."""
    skipped: bool
    """Loss or gradient was not finite, and the step changed nothing."""
    peak_memory_bytes: int
    """Largest peak memory of any rank so far."""
    bytes_sent: dict[str, float] | None
    """Bytes that a rank sent over each level in the step, on average; null: not known for this engine."""
    busy_s: NotRequired[float]
    """Seconds of the step in which a rank did not wait, on average over ranks."""
    slowest_rank: NotRequired[int]
    """The rank that worked longest."""
    slowest_busy_s: NotRequired[float]
    """Seconds for which it worked."""
    loss_scale: NotRequired[float]
    """Scale of the loss, with float16 only."""


class Validation(TypedDict):
    """A validation after a step."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["validation"]
    step: int
    """Steps taken before it."""
    loss: float | None
    """Mean loss of the validation tokens."""
    unigram_loss: float | None
    """Loss of a unigram model of the same tokens; null: not known."""


class Checkpoint(TypedDict):
    """A checkpoint that is whole and on disk."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["checkpoint"]
    step: int
    """Steps that it holds."""
    path: str
    """Its folder."""
    write_s: float
    """Seconds from its begin until it was on disk."""
    stalled_s: float
    """Seconds for which training waited."""


class Warning(TypedDict):
    """Something odd that does not end the run."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["warning"]
    about: str
    """What it is about: start, loss, straggler or checkpoint."""
    step: int
    """Steps taken before it."""
    message: str
    """What to tell the user."""


class Stopped(TypedDict):
    """The run stopped on request after a checkpoint, and is to be continued."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["stopped"]
    step: int
    """Steps taken."""


class Summary(TypedDict):
    """The run came to its last step."""

    __pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[misc]

    kind: Literal["summary"]
    steps: int
    """Steps of the whole run."""
    first_validation_loss: float | None
    """Validation loss before the first step; null: no validation."""
    last_validation_loss: float | None
    """Validation loss after the last step."""
    tokens_per_s_per_device: float | None
    """Median of the steady steps of this start."""
    bytes_per_step: dict[str, float] | None
    """Bytes that a rank sent over each level in the last step."""
    elapsed_s: float
    """Seconds of this start, all included."""


Record: TypeAlias = Header | Step | Validation | Checkpoint | Warning | Stopped | Summary
OnRecord = Callable[[Record], None]

#: By kind: what a line must have to be a record, with its type.
_NEEDED: dict[str, dict[str, type]] = {
    "header": {},
    "step": {"step": int},
    "validation": {"step": int},
    "checkpoint": {"step": int},
    "warning": {},
    "stopped": {"step": int},
    "summary": {},
}


def parse(line: bytes | str) -> Record | None:
    """The record in a line; None where there is none: cut off, damaged, or of a kind that is not known."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    needed = _NEEDED.get(record["kind"])
    if needed is None or any(type(record.get(key)) is not kind for key, kind in needed.items()):
        return None
    return record  # type: ignore[return-value]
