"""How often to write checkpoints (Young 1974, Daly 2006) and what one costs."""

from __future__ import annotations

import math
from typing import NamedTuple

from frontrunner.configs.schema import MachineSpec, ModelSpec, RunSpec
from frontrunner.parallelism.planner.parameters import stage_units

#: Master weight and two moments in float32; everything else in a checkpoint is small.
BYTES_PER_PARAMETER = 12


def checkpoint_bytes(model: ModelSpec) -> float:
    """Size of a checkpoint of the whole model, without error feedback."""
    return BYTES_PER_PARAMETER * stage_units(model).numel


def write_s(model: ModelSpec, machine: MachineSpec, nodes: int) -> float:
    """Seconds to write one from ``nodes`` nodes, at the machine file's rate."""
    assert machine.reliability
    return checkpoint_bytes(model) / (nodes * machine.reliability.write_bytes_per_s_per_node)


def interval_s(cost_s: float, machine: MachineSpec, nodes: int) -> float:
    """Seconds between checkpoints that cost ``cost_s`` each: sqrt(2 C M), first order (Young 1974).

    M is the job's mean time between failures. The result is at least the cost itself, even if M is short.
    """
    assert machine.reliability
    mtbf_s = machine.reliability.node_mtbf_s / nodes
    return max(cost_s, math.sqrt(2 * cost_s * mtbf_s))


class CheckpointPlan(NamedTuple):
    """What ``checkpoint.every_minutes: auto`` does before it has measured a checkpoint."""

    bytes: float
    write_s: float
    mtbf_s: float
    """The mean time between failures of the whole job."""
    interval_s: float


def plan_checkpoints(spec: RunSpec) -> CheckpointPlan | None:
    """The plan of a run; None if its machine file does not say how often nodes fail."""
    machine = spec.machine
    if machine.reliability is None:
        return None
    cost_s = write_s(spec.model, machine, spec.nodes)
    return CheckpointPlan(
        checkpoint_bytes(spec.model),
        cost_s,
        machine.reliability.node_mtbf_s / spec.nodes,
        interval_s(cost_s, machine, spec.nodes),
    )
