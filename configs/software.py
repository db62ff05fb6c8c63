"""Measured rates of a machine's devices and links, for one software year."""

from typing import Annotated

from pydantic import Field

from frontrunner.configs.types import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt


class GemmRate(Frozen):
    """Rate of a matrix product of square matrices."""

    size: PositiveInt
    """Rows and columns of each matrix."""
    flops_per_s: PositiveFloat
    """Rate of one device."""


class RingSpec(Frozen):
    """Ring bandwidth of the collective library per device, with all devices of a node busy."""

    package: PositiveFloat
    """Bytes/s of a ring inside a package."""
    node: PositiveFloat
    """Bytes/s of a ring inside a node; with full_mesh, of a ring of all its devices."""
    full_mesh: bool = False
    """Each pair of devices of a node has a link of its own (MI300X), so that a ring of n of its N devices
    only has (n - 1) / (N - 1) of the bandwidth."""
    whole_nodes: PositiveFloat
    """Bytes/s of a ring through all devices of several nodes, using all network interfaces."""
    across_nodes: PositiveFloat
    """Bytes/s of a ring through some devices of each node, with parallel rings on the others."""
    across_latency_s: NonNegativeFloat
    """Seconds per step of a ring between nodes, for steps of many bytes; an all-gather has one per rank."""
    reduce_latency_s: NonNegativeFloat | None = None
    """The same for a reduce-scatter (default: as an all-gather)."""
    whole_step_bytes: PositiveInt = 1
    """Bytes per rank from which a step takes its whole latency; it falls with the root of fewer bytes."""
    tree_latency_s: NonNegativeFloat | None = None
    """Seconds per level of an all-reduce's tree, up and down (default: all-reduces are rings)."""
    point_to_point: PositiveFloat
    """Bytes/s of a message to a device of another node, with all devices of the node sending."""


class SoftwareSpec(Frozen):
    """Measured rates, and a few constants fitted to published runs."""

    gemm: Annotated[list[GemmRate], Field(min_length=2)]
    """Matrix product rates with all devices of a node busy, by increasing size."""
    gemm_factor: PositiveFloat
    """Factor on the gemm table for the library of this year."""
    attention_flops_per_s: PositiveFloat
    """Rate of fused (flash) attention, forward."""
    memory_efficiency: Annotated[float, Field(gt=0, le=1)]
    """Fraction of peak memory bandwidth that memory-bound operators reach."""
    rings: RingSpec
    """Ring bandwidth of the collective library at each level."""
    contention: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a device's computing that is lost while a collective runs beside it."""
    device_spread: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Standard deviation of a device's speed, as a share; a step ends with the slowest device."""
    fitted: dict[str, list[str]] = Field(default_factory=dict)
    """Fitted constants, each with the published runs it was fitted to."""
