"""Parses the lines that Megatron-LM, Megatron-DeepSpeed and GPT-NeoX print, each into one value or an error.

A line that looks like one of these but is damaged (truncated, two lines interleaved, invalid numbers) raises
:class:`~.values.Lost`; any other line gives None.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from frontrunner.analysis.importers.values import NUMBER, Lost, count, decoded, finite, number, put
from frontrunner.analysis.run_log import LONGEST_STEP_S

MIB = 2**20
_UNITS = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30, "TB": 2.0**40}  # DeepSpeed's convert_size
_FLOPS = {"": 1.0, "K": 1e3, "G": 1e9, "T": 1e12, "P": 1e15}

_ITERATION = re.compile(r"(?:^|\s)iteration\s+(\d+)\s*/\s*(\d+)\s*$")
#: Text that a fragment of a step line contains, wherever it was cut.
_STEP_MARKS = (b"elapsed time per iteration", b"| learning rate:", b"| number of nan iterations:")
_BEGINNING = re.compile(r"(?:samples/sec:[^|]*\|\s*)?\biteration\s+\d+\s*/\s*\d+\s*\|")
_BEGUN = re.compile(rb"\biteration\s+\d+\s*/\s*\d+\s*\|")
#: Primus ends a step with this field, and without a bar.
_LAST = re.compile(r"number of nan iterations:\s*\d+$")
_PRINTED_FLOPS = re.compile(rf"\s*({NUMBER})\s*([KGTP]?)FLOPS?\s*$", re.IGNORECASE)
_MEMORY = re.compile(
    rf"\[Rank (\d+)\] \(after (\d+) iterations\) memory \(MB\) \| allocated: ({NUMBER}) "
    rf"\| max allocated: ({NUMBER}) \| reserved: ({NUMBER})(?: \| max reserved: ({NUMBER}))?\s*$"
)
_OPERATION = re.compile(
    rf"\[Rank \d+\] rank=(\d+) \| comm op: (\w+) \| time \(ms\): ({NUMBER}) \| msg size: ({NUMBER}) (\w+) "
    rf"\| "
    rf"algbw \(Gbps\): {NUMBER}\s+\| busbw \(Gbps\): {NUMBER}\s*$"
)
_ARGUMENT = re.compile(r"^\s*([A-Za-z]\w*) \.+ ?(.*?)\s*$")
_NEOX_ORIGIN = re.compile(r"(?:\.{2,}|(?<=[\]}]))(?:updated|default)$")  # no dots after a long value

#: Fields of a step line, by the names that trainers print.
_FIELDS = {
    "lm loss": "loss",
    "lm_loss": "loss",
    "learning rate": "learning_rate",
    "grad norm": "gradient_norm",
    "loss scale": "loss_scale",
    "global batch size": "global_batch_size",
    "curriculum seqlen": "seq_len",
    "number of skipped iterations": "skipped",
    "samples per second": "samples_per_s",
}
_TIMES = {"elapsed time per iteration (ms)": 1e-3, "elapsed time per iteration (s)": 1.0}
#: Labels of a printed speed, and the trainer that uses each.
PRINTED = {
    "TFLOPs": "megatron-deepspeed",
    "approx flops per GPU": "gpt-neox",
    "throughput per GPU (TFLOP/s/GPU)": "megatron-lm",
    "compute per GPU (TFLOP/s/GPU)": "primus",
}


class Step(NamedTuple):
    """A step line: ``values`` by column, and the ``label`` of the printed FLOP/s if there is one."""

    values: dict[str, float | None]
    planned: int
    label: str | None


class Memory(NamedTuple):
    """Memory of one rank, in bytes."""

    rank: int
    allocated: float
    peak: float
    reserved: float


class Message(NamedTuple):
    """One call of a collective."""

    rank: int
    name: str
    seconds: float
    bytes: float


def step(line: bytes) -> Step | None:
    """Parse the line of a training step. Loss, gradient norm and loss scale may be NaN (None then)."""
    if not any(mark in line for mark in _STEP_MARKS) and not _BEGUN.search(line):
        return None
    text = _record(decoded(line))
    values: dict[str, float | None] = {}
    planned, label = 0, None
    for part in text[:-1].split("|"):
        if found := _ITERATION.search(part):
            put(values, "step", count(found[1]))
            planned = count(found[2])
            continue
        name, colon, value = part.partition(":")
        if not colon:
            raise Lost
        label = name.strip() if name.strip() in PRINTED else label
        _read_field(values, name.strip(), value)
    if "step" not in values or "step_time_s" not in values:
        raise Lost
    return Step(values, planned, label)


def _record(text: str) -> str:
    """From the beginning of a step to the bar at its end."""
    begin = _BEGINNING.search(text)
    if begin is None:
        raise Lost
    text = text[begin.start() :].rstrip()
    if text.endswith("|"):
        return text
    if not _LAST.search(text):
        raise Lost
    return text + "|"


def _read_field(values: dict[str, float | None], name: str, value: str) -> None:
    if name in _TIMES:
        seconds = finite(value) * _TIMES[name]
        if not 0 < seconds < LONGEST_STEP_S:
            raise Lost
        put(values, "step_time_s", seconds)
    elif name in PRINTED:
        put(values, "printed_flops_per_s", _flops(value))
    elif "samples/sec" in name:  # GPT-NeoX prints it first, after whatever prefix a launcher adds
        put(values, "samples_per_s", finite(value))
    elif name in _FIELDS:
        put(values, _FIELDS[name], number(value))


def memory(line: bytes) -> Memory | None:
    """Parse a rank's report of its memory."""
    if b"memory (MB)" not in line:
        return None
    found = _MEMORY.search(decoded(line))
    if not found:
        raise Lost
    allocated, peak, reserved = (finite(found[group]) * MIB for group in (3, 4, 5))
    if not 0 <= allocated <= peak < 2**60:
        raise Lost
    return Memory(count(found[1]), allocated, peak, reserved)


def message(line: bytes) -> Message | None:
    """Parse one operation of DeepSpeed's communication log."""
    if b"| comm op:" not in line:
        return None
    found = _OPERATION.search(decoded(line))
    if not found or found[5] not in _UNITS:
        raise Lost
    seconds, size = finite(found[3]) / 1e3, finite(found[4]) * _UNITS[found[5]]
    if not (0 <= seconds < LONGEST_STEP_S and 0 <= size < 2**60):
        raise Lost
    return Message(count(found[1]), found[2], seconds, size)


def argument(line: bytes) -> tuple[str, str] | None:
    """Parse the name and value on a line of the table of arguments."""
    found = _ARGUMENT.match(decoded(line)) if b" .." in line else None
    return (found[1], _NEOX_ORIGIN.sub("", found[2])) if found else None


def _flops(text: str) -> float:
    """FLOP/s, from a number in TFLOP/s or a number with its unit."""
    if found := _PRINTED_FLOPS.match(text):
        value = float(found[1]) * _FLOPS[found[2].upper()]
    else:
        value = finite(text) * 1e12
    if not math.isfinite(value):
        raise Lost
    return value
