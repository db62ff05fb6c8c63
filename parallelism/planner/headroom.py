"""How much of a device's memory a proposed layout may take, and what that leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frontrunner.configs.schema import MachineSpec
from frontrunner.parallelism.planner.search import Ranking

#: Share of the memory that stays free: fragmentation alone varies from 11 to 22 % of the tensors between
#: logs of the same machine, and the planner takes the middle.
MARGIN = 0.05
#: The HIP context, the code of all kernels and the libraries' workspaces, which the allocator does not see.
#: Assumed. Communicators are counted in the planner's ``residual``.
CONTEXT_BYTES = 512 * 2**20


def usable_bytes(machine: MachineSpec, margin: float = MARGIN) -> float:
    """Bytes of a device that a layout may take at its peak."""
    context = CONTEXT_BYTES if machine.device.kind != "cpu" else 0
    return (1 - margin) * machine.device.memory_bytes - context


def largest_margin(ranking: Ranking) -> float:
    """The margin that leaves just one layout; below 0 if even none would help."""
    machine = ranking.estimated.workload.machine
    least = float(ranking.estimated.memory.peak.min())
    return (usable_bytes(machine, 0.0) - least) / machine.device.memory_bytes


def with_margin(ranking: Ranking, margin: float = MARGIN) -> tuple[Ranking, int]:
    """The ranking of the layouts that leave the margin free, and how many others fit."""
    peak = ranking.estimated.memory.peak[ranking.order]
    roomy = peak <= usable_bytes(ranking.estimated.workload.machine, margin)
    return replace(ranking, order=ranking.order[roomy]), int(np.count_nonzero(~roomy))
