"""Text logs of Megatron-LM, Megatron-DeepSpeed, GPT-NeoX, Primus and Megatron-Bridge.

The printed speeds follow different conventions. Megatron-DeepSpeed and GPT-NeoX multiply the forward pass by
four if activations are recomputed (hardware FLOPs); Megatron-LM always multiplies by three (model FLOPs).
``RunLog.facts`` holds what only these logs give: ``arguments``, ``overflow_lines``,
``engine_micro_batch_size``, ``counted_micro_batches``, ``rocm``, ``validation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from frontrunner.analysis.importers import labels, megatron_bridge
from frontrunner.analysis.importers import megatron_arguments as given
from frontrunner.analysis.importers import megatron_lines as lines
from frontrunner.analysis.importers.lines import Lines
from frontrunner.analysis.importers.unsupported import unsupported
from frontrunner.analysis.importers.values import Lost
from frontrunner.analysis.run_log import Operation, RunLog, StageMemory, current_segment, step_table

CONVENTIONS = {
    "megatron-deepspeed": "hardware",
    "gpt-neox": "hardware",
    "megatron-lm": "model",
    "primus": "model",
    "megatron-bridge": "model",
}

#: Text that identifies a machine in a log: OLCF host names, and the file systems of OLCF and CSC.
MACHINES = (
    (re.compile(rb"\bfrontier\d{5}\b"), "frontier", "a host name"),
    (re.compile(rb"\bcrusher\d{3}\b"), "frontier", "a host name of Crusher, which has Frontier's nodes"),
    (re.compile(rb"/lustre/orion/"), "frontier", "the path /lustre/orion"),
    (re.compile(rb"/pfs/lustrep\d/"), "lumi-g", "the path /pfs/lustrep"),
)
_ENGINE = re.compile(rb"CONFIG: micro_batches=\d+ micro_batch_size=(\d{1,9})\s*$")
_COUNTED = re.compile(rb"setting number of micro-?batches to constant (\d{1,9})\s*$")
_VOCABULARY = re.compile(rb"padded vocab \(size: \d+\) with \d+ dummy tokens \(new size: (\d{1,9})\)")
_ROCM = re.compile(rb"torch hip version \.+ (\d+\.\d+)")
_VALIDATION = re.compile(
    rb"validation loss at iteration (\d{1,12})\b.*?\| lm loss value: (\d+\.\d+E[+-]\d\d) \|"
)


@dataclass
class _Reading:
    """What has been read so far."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    earlier_arguments: list[dict[str, str]] = field(default_factory=list)
    in_arguments: bool = False
    segment: int = 0
    lost: int = 0
    planned: int | None = None
    labels: set[str] = field(default_factory=set)
    memory: list[tuple[int, lines.Memory]] = field(default_factory=list)
    """With the start of the run that it is of."""
    messages: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    messages_rank: int | None = None
    machine: tuple[str, str] | None = None
    deepspeed: bool = False
    bridge: bool = False
    bridge_speed: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return len(self.columns.get("step", ()))


def read(path: Path, run_id: str) -> tuple[RunLog, pl.DataFrame] | str:
    """The run of a log, or why there is none. Raises OSError if it cannot be opened."""
    reading, source = _Reading(), Lines(path)
    for line in source:
        for record in labels.records(line):
            _read_line(reading, record)
    if not reading.steps and reading.lost:
        return f"{reading.lost} lines look like training steps or their memory, but none can be read"
    if not reading.steps:
        return "holds no line of a training step"
    reading.lost += source.torn
    return _run(reading, str(path), run_id), step_table(reading.columns)


def _read_line(reading: _Reading, line: bytes) -> None:
    try:
        if found := lines.step(line):
            _add_step(reading, found)
        elif told := lines.memory(line):
            reading.memory.append((reading.segment, told))
        elif sent := lines.message(line):
            _add_message(reading, sent)
        else:
            _read_other(reading, line)
    except Lost:
        reading.lost += 1


def _add_step(reading: _Reading, found: lines.Step) -> None:
    values: dict[str, Any] = dict(found.values)
    values["segment"] = reading.segment
    if reading.bridge_speed and "printed_flops_per_s" not in values:
        values["printed_flops_per_s"] = reading.bridge_speed
    reading.bridge_speed = None
    skipped = values.pop("skipped", None)
    values["skipped"] = bool(skipped) if skipped is not None else None
    before = reading.steps
    for name in values.keys() - reading.columns.keys():
        reading.columns[name] = [None] * before
    for name, column in reading.columns.items():
        column.append(values.get(name))
    reading.planned = found.planned or reading.planned
    if found.label:
        reading.labels.add(found.label)


def _add_message(reading: _Reading, sent: lines.Message) -> None:
    """Sums by step. Calls before the first step line count for the first step, which is warm-up."""
    if reading.messages_rank is None:
        reading.messages_rank = sent.rank
    if sent.rank == reading.messages_rank:
        sums = reading.messages.setdefault((reading.steps, sent.name), [0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += sent.bytes
        sums[2] += sent.seconds


def _read_other(reading: _Reading, line: bytes) -> None:
    if b" arguments --" in line:
        ends = b"end of arguments" in line
        if not ends and reading.steps:  # the trainer was started again and wrote to the same file
            reading.segment += 1
            reading.earlier_arguments.append(reading.arguments)
            reading.arguments = {}
        reading.in_arguments = not ends
    elif reading.in_arguments and (pair := lines.argument(labels.bare(line))):
        reading.arguments[pair[0]] = pair[1]
    elif b"OVERFLOW! Rank 0" in line or b"OVERFLOW! Skipping step" in line:
        reading.facts["overflow_lines"] = reading.facts.get("overflow_lines", 0) + 1
    elif b"DeepSpeed" in line:
        reading.deepspeed = True
    _read_bridge(reading, line)
    for name, (mark, pattern) in _FACTS.items():
        if mark in line and (found := pattern.search(line)):
            reading.facts[name] = int(found[1]) if name != "rocm" else found[1].decode()
    if b"validation loss at iteration" in line and (found := _VALIDATION.search(line)):
        reading.facts.setdefault("validation", []).append((int(found[1]), float(found[2])))
    if reading.machine is None:
        reading.machine = next(((name, why) for mark, name, why in MACHINES if mark.search(line)), None)


def _read_bridge(reading: _Reading, line: bytes) -> None:
    if speed := megatron_bridge.speed(line):
        reading.bridge, reading.bridge_speed = True, speed
    elif megatron_bridge.begins(line):
        reading.bridge = True
    elif reading.bridge and not reading.steps and (pair := megatron_bridge.setting(line)):
        reading.arguments.setdefault(*pair)


_FACTS = {
    "engine_micro_batch_size": (b"CONFIG: micro_batches", _ENGINE),
    "counted_micro_batches": (b"setting number of micro", _COUNTED),
    "padded_vocabulary": (b"padded vocab", _VOCABULARY),
    "rocm": (b"torch hip version", _ROCM),
}


def _run(reading: _Reading, path: str, run_id: str) -> RunLog:
    """The facts of a log, once it has been read to its end."""
    arguments = given.Arguments(reading.arguments, "pipe_parallel_size" in reading.arguments)
    name = _format(reading)
    layout = given.layout(arguments) if reading.arguments else {}
    devices = arguments.number("world_size")
    batches = [value for value in reading.columns.get("global_batch_size", ()) if value]
    batch = arguments.number("global_batch_size") or (int(batches[-1]) if batches else None)
    machine, why = reading.machine or (None, None)
    facts = reading.facts | {
        "arguments": len(reading.arguments),
        "flash_attention": any(arguments.switch(key) for key in ("use_flash_attn", "use_flash_attn_v2")),
        "alibi": "alibi" in str(arguments.word("position_embedding_type")),
        "log_interval": arguments.number("log_interval") or 1,
    }
    operations, rank = _operations(reading)
    cuts = [given.layout(given.Arguments(each, False)) for each in reading.earlier_arguments]
    current = current_segment([*cuts, layout])
    memory = [told for segment, told in reading.memory if segment >= current]
    model = given.model(arguments, run_id, reading.facts.get("padded_vocabulary"))
    return RunLog(
        id=run_id,
        path=path,
        format=name,
        devices=devices,
        machine=machine,
        machine_reason=why,
        model=model,
        layout=layout,
        global_batch_size=batch,
        seq_len=arguments.number("seq_length"),
        precision=given.precision(arguments),
        flop_convention=CONVENTIONS[name] if "printed_flops_per_s" in reading.columns else None,
        planned_steps=reading.planned,
        current_segment=current,
        lost_lines=reading.lost,
        memory=_stages(memory, devices, layout.get("pipeline")),
        communication=operations,
        communication_rank=rank,
        unsupported=tuple(unsupported(reading.arguments, model is not None and model.experts is not None)),
        facts=facts,
        settings=_settings(reading),
    )


def _settings(reading: _Reading) -> dict[str, str]:
    """The arguments, with the vocabulary's rows, which some print beside them."""
    rows = reading.facts.get("padded_vocabulary")
    return reading.arguments | ({"padded_vocab_size": str(rows)} if rows else {})


def _format(reading: _Reading) -> str:
    if reading.bridge:
        return "megatron-bridge"
    if len(reading.labels) == 1:
        return lines.PRINTED[next(iter(reading.labels))]
    if "pipe_parallel_size" in reading.arguments:
        return "gpt-neox"
    return "megatron-deepspeed" if reading.deepspeed else "megatron-lm"


def _stages(told: list[lines.Memory], devices: int | None, pipeline: int | None) -> tuple[StageMemory, ...]:
    """By pipeline stage: these trainers give the ranks of a stage consecutive numbers."""
    a_stage = devices // pipeline if devices and pipeline and devices >= pipeline else None
    found: dict[int, list[lines.Memory]] = {}
    for memory in told:
        if a_stage is None or memory.rank < (devices or 0):
            found.setdefault(memory.rank // a_stage if a_stage else 0, []).append(memory)
    most: Callable[[list[float]], float] = max
    return tuple(
        StageMemory(
            stage,
            most([memory.allocated for memory in ranks]),
            most([memory.peak for memory in ranks]),
            most([memory.reserved for memory in ranks]),
        )
        for stage, ranks in sorted(found.items())
    )


def _operations(reading: _Reading) -> tuple[tuple[Operation, ...], int | None]:
    """Averages over the completed steps after the first, and the rank that logged them."""
    whole = range(1, reading.steps)
    if not whole or not any(step in whole for step, _ in reading.messages):
        return (), None
    names = dict.fromkeys(name for _, name in reading.messages)
    sums = {
        name: [
            sum(reading.messages.get((step, name), (0, 0, 0))[part] for step in whole) for part in range(3)
        ]
        for name in names
    }
    count = len(whole)
    return (
        tuple(Operation(name, round(c / count), b / count, s / count) for name, (c, b, s) in sums.items()),
        reading.messages_rank,
    )
