"""Xu et al. 2025 (arXiv 2501.04266): a 20B GPT on 384 devices under ZeRO-3, ZeRO++ and three levels.

Only ratios are published, not the batch. The convention here: GPT-NeoX-20B's shape, sequences of 2,048
tokens, full recomputation, no accumulation, one sequence per device and step (the minimum), and software of
2023. All three are DeepSpeed's, which gathers the weights of each submodule on its own
(partitioned_param_coordinator.py, fetch_sub_module), one ahead while the one before computes: the
prefetch bucket of 5e7 parameters is smaller than most. A layer has four such messages: queries, keys and
values; the attention's output; both products of the MLP. Nothing is fitted to these ratios. Larger
micro-batches, which bring all three closer together, are shown too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from frontrunner.configs.schema import MachineSpec, ModelSpec
from frontrunner.configs.sharding import PRESET_WIRES, SHARDING_PRESETS, Preset
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.engine_profile import NATIVE
from frontrunner.parallelism.planner.step_time import step_time
from frontrunner.parallelism.planner.traffic import wire_bytes

PUBLISHED = {"zeropp": 1.405, "three_level": 2.398, "efficiency": 0.94}
COMPARED: tuple[Preset, ...] = ("zero3", "zeropp", "three_level")
CONVENTION = (
    "GPT-NeoX-20B's shape, sequences of 2,048 tokens, one sequence per device and step, full recomputation, "
    "each product's weights gathered on their own as in DeepSpeed, software of 2023"
)
DEEPSPEED_GATHERS_PER_LAYER = 4
MICRO_BATCHES = (1, 2, 4, 8)
NODES = 48
ERA = "2023"


@dataclass(frozen=True)
class Ratios:
    """Speeds relative to ZeRO-3, and of three levels relative to one node, for one micro-batch size."""

    micro_batch_size: int
    zeropp: float
    three_level: float
    efficiency: float


def ratios(model: ModelSpec, machine: MachineSpec) -> list[Ratios]:
    """The ratios for each of :data:`MICRO_BATCHES`; the first is the convention's."""
    profile = replace(NATIVE, dropout=False, gathers_per_layer=DEEPSPEED_GATHERS_PER_LAYER)
    workload = Workload(model, machine, machine.software[ERA], 2048, 2, 4, profile)
    found = []
    for size in MICRO_BATCHES:
        seconds = {preset: _step(workload, preset, NODES, size) for preset in COMPARED}
        alone = _step(workload, "three_level", 1, size)
        found.append(
            Ratios(
                size,
                zeropp=seconds["zero3"] / seconds["zeropp"],
                three_level=seconds["zero3"] / seconds["three_level"],
                efficiency=alone / seconds["three_level"],
            )
        )
    return found


def _step(workload: Workload, preset: Preset, nodes: int, micro_batch_size: int) -> float:
    """Seconds per step without accumulation."""
    machine = workload.machine
    levels = {
        1: 1,
        "package": machine.devices_per_package,
        "node": machine.devices_per_node,
        "all": nodes * machine.devices_per_node,
    }
    weights, gradients, optimizer = (levels[level] for level in SHARDING_PRESETS[preset])
    wires = [wire_bytes(wire, 256) for wire in PRESET_WIRES.get(preset, ("bfloat16",) * 3)]
    values = {
        "tensor": 1,
        "sequence_parallel": 0,
        "pipeline": 1,
        "virtual_stages": 1,
        "data": levels["all"],
        "micro_batch_size": micro_batch_size,
        "grad_accum_steps": 1,
        "recompute": 2,
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "secondary": levels["node"] if preset == "zeropp" else weights,
        "weight_wire": wires[0],
        "gradient_wire": wires[1],
        "network_wire": wires[2],
        "error_feedback": 0,
        "expert": 1,
        "flat_dispatch": 0,
        "int8_dispatch": 0,
    }
    c = Candidates(**{key: np.array([float(value)]) for key, value in values.items()})
    # DeepSpeed's ZeRO-3 reduces by RCCL's reduce-scatter; the other two exchange quantised blocks.
    profile = replace(workload.profile, scatters=preset == "zero3")
    return float(step_time(replace(workload, profile=profile), c).total[0])
