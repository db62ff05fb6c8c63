"""Where the ranks of a node run: rank k of a node drives device k, on the cores beside it.

Neighbouring devices share a package: ranks 2k and 2k+1 of a node are its two halves. All devices stay visible
to every rank, which picks its own by number.
"""

from __future__ import annotations

from collections.abc import Sequence

from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.site import PlaceSpec


def cpu_bind(places: Sequence[PlaceSpec]) -> str | None:
    """srun's ``--cpu-bind``: one core mask per rank of a node; None if placement is unknown."""
    if not places:
        return None
    masks = (sum(1 << core for core in place.core_numbers()) for place in places)
    return "mask_cpu:" + ",".join(f"{mask:#x}" for mask in masks)


def cores_per_rank(places: Sequence[PlaceSpec]) -> int | None:
    """Cores per rank; None if placement is unknown."""
    return min((len(place.core_numbers()) for place in places), default=None)


def table(machine: MachineSpec) -> list[str]:
    """One line per device, for display."""
    rows = zip(range(machine.devices_per_node), machine.site.devices, strict=False)
    return [
        f"rank {n}: package {n // machine.devices_per_package}, NUMA {p.numa}, cores {p.cores}, {p.nic}"
        for n, p in rows
    ]
