"""What a machine's devices and links achieve with the software of one year."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from frontrunner.configs.types import Frozen, NonNegativeFloat, PositiveFloat, PositiveInt


class GemmRate(Frozen):
    """Rate of a product of square matrices."""

    size: PositiveInt
    """Rows and columns of each of them."""
    flops_per_s: PositiveFloat
    """What one device reaches on that product."""


class RingSpec(Frozen):
    """What one device carries in a ring of the collective library, all devices of the node busy."""

    package: PositiveFloat
    """Bytes/s of a ring inside a package."""
    node: PositiveFloat
    """Bytes/s of a ring inside a node."""
    whole_nodes: PositiveFloat
    """Bytes/s of a ring through all devices of several nodes, which uses all their network interfaces."""
    across_nodes: PositiveFloat
    """Bytes/s of a ring that takes some devices of each node, others beside it."""
    across_latency_s: NonNegativeFloat
    """Seconds of each step of a ring between nodes: all-gathers and reduce-scatters have as many as ranks."""
    point_to_point: PositiveFloat
    """Bytes/s of a message to a device of another node, all devices of the node sending."""


class SoftwareSpec(Frozen):
    """Measured rates, and the few constants that were fitted to published runs."""

    gemm: Annotated[list[GemmRate], Field(min_length=2)]
    """Measured with all devices of a node busy, by increasing size."""
    gemm_factor: PositiveFloat
    """Factor on the measured table for the library of this year."""
    attention_flops_per_s: PositiveFloat
    """Of fused (flash) attention, forward."""
    memory_efficiency: Annotated[float, Field(gt=0, le=1)]
    """Share of the device's memory bandwidth that operators bound by it reach."""
    rings: RingSpec
    """What the collective library reaches at each level."""
    fitted: dict[str, list[str]] = Field(default_factory=dict)
    """Which constants are fitted, and to which published runs."""
