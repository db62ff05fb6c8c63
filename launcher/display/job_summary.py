"""What a submission would use, take and write, for ``submit --dry-run``."""

from __future__ import annotations

import os
from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.slurm import clock
from frontrunner.configs.units import bytes_text, seconds_text
from frontrunner.parallelism.planner.checkpoints import checkpoint_bytes
from frontrunner.parallelism.planner.plan import Estimate
from frontrunner.run_folder import files
from frontrunner.slurm.policy import Schedule


def summary(spec: RunSpec, schedule: Schedule, estimated: Estimate, folder: Path) -> list[str]:
    """Lines of at most 80 columns, but for long names; predictions are the planner's."""
    where = schedule.partition or "Slurm's default partition"
    where += f" with qos {schedule.qos}" if schedule.qos else ""
    jobs = "1 job" if schedule.segments == 1 else f"{schedule.segments} segments, one job after the other"
    nodes = f"{spec.nodes} node{'s' * (spec.nodes != 1)}"
    lines = {
        "queue": f"{where}: {nodes}, {clock(schedule.segment_s)} a job",
        "segments": f"{jobs}; {clock(schedule.total_s)} in all",
        "cost": f"at most {spec.nodes * schedule.total_s / 3600:,.1f} node-hours",
        "memory": _memory(spec, estimated),
        "time": _time(spec, estimated),
        "writes": f"{os.path.relpath(folder)}/: {files.SPEC}, {files.SCRIPT}, {files.RECORDS}, {files.LOGS}/",
        "": f"{_checkpoints(spec)} in {files.CHECKPOINTS}/",
    }
    return [f"{name:<9} {text}" for name, text in lines.items()]


def _memory(spec: RunSpec, estimated: Estimate) -> str:
    peak, capacity = float(estimated.memory.peak[0]), float(spec.machine.device.memory_bytes)
    return f"{bytes_text(peak)} of {bytes_text(capacity)} per device ({peak / capacity:.0%}), predicted"


def _time(spec: RunSpec, estimated: Estimate) -> str:
    training = spec.training
    tokens = training.steps * training.global_batch_size * training.seq_len
    length = f"{training.steps:,} steps, {tokens:.3g} tokens"
    if estimated.time is None:
        return f"unknown for {length}: the machine file has no rates"
    step = float(estimated.time.total[0])
    total = step * training.steps
    hours = spec.nodes * total / 3600
    return (
        f"{total / 86400:,.2f} days and {hours:,.1f} node-hours, predicted\n"
        f"{'':<10}for {length}, {seconds_text(step)} a step"
    )


def _checkpoints(spec: RunSpec) -> str:
    """How many checkpoints are kept, and their size; without error feedback."""
    kept = spec.checkpoint.keep if spec.checkpoint.periodic else int(spec.checkpoint.at_end)
    each = bytes_text(checkpoint_bytes(spec.model))
    if spec.checkpoint.keep_every:
        return f"checkpoints of {each}: {kept} and those of every {spec.checkpoint.keep_every} steps"
    return f"{kept} checkpoint{'s' * (kept != 1)} of {each}" if kept else "no checkpoint"
