"""How each kind of state is cut over data-parallel ranks, and in which format its messages travel."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from frontrunner.configs.types import Frozen, PositiveInt, say

Level = Literal["package", "node", "all"]
Degree = Annotated[
    Level | PositiveInt,
    say("must be a level (package, node, all) or a number of ranks", "write package, node, all or a number"),
]
Preset = Literal["ddp", "zero1", "zero2", "zero3", "zeropp", "hsdp", "three_level"]
Wire = Literal["float32", "bfloat16", "float16", "int8", "int4"]
Precision = Literal["float32", "bfloat16", "float16"]

#: Degrees (weights, gradients, optimizer) of each sharding preset.
SHARDING_PRESETS: dict[Preset, tuple[Level | int, Level | int, Level | int]] = {
    "ddp": (1, 1, 1),
    "zero1": (1, 1, "all"),
    "zero2": (1, "all", "all"),
    "zero3": ("all", "all", "all"),
    "zeropp": ("all", "all", "all"),
    "hsdp": ("node", "node", "node"),
    "three_level": ("package", "node", "all"),
}


class WireSpec(Frozen):
    """In which format each kind of message travels; int8 and int4 are quantised in blocks.

    Without a format the preset's: int8 weights and int4 gradients for zeropp (on the network too) and for
    three_level (bfloat16 on the network), else the run's precision.
    """

    weights: Wire | None = None
    """Weights, when they are gathered for use and when they are brought up to date."""
    gradients: Wire | None = None
    """Gradients inside the block that is reduced in each micro-batch."""
    network: Wire | None = None
    """Gradients that cross to the other ranks once per step."""
    block: Literal[32, 64, 128, 256, 512, 1024, 2048] = 256
    """Elements that share a scale, in int8 and int4."""
    error_feedback: bool = False
    """Add what gradients lost on the wire to the next micro-batch's (costs a copy of the gradients)."""


class Wires(Frozen):
    """:class:`WireSpec` with every format decided."""

    weights: Wire
    gradients: Wire
    network: Wire
    block: int
    error_feedback: bool


#: Formats (weights, gradients, network) of the presets that quantise.
PRESET_WIRES: dict[Preset, tuple[Wire, Wire, Wire]] = {
    "zeropp": ("int8", "int4", "int4"),
    "three_level": ("int8", "int4", "bfloat16"),
}


class ShardingSpec(Frozen):
    """Over how many data-parallel ranks each kind of state is cut: a preset, or levels and numbers.

    The loader resolves a preset into the three degrees and keeps its name for display.
    """

    preset: Preset | None = None
    """A named triple of degrees; instead of the degrees."""
    weights: Degree = SHARDING_PRESETS["three_level"][0]
    """Over how many data-parallel ranks the weights are cut: a level, or a number."""
    gradients: Degree = SHARDING_PRESETS["three_level"][1]
    """Over how many data-parallel ranks the gradients are cut; weights must divide it."""
    optimizer: Degree = SHARDING_PRESETS["three_level"][2]
    """Over how many data-parallel ranks the optimizer state is cut; gradients must divide it, and it must
    divide the data-parallel ranks."""
    secondary: Degree | None = None
    """Over how many ranks a second copy of the weights is cut that serves the backward (ZeRO++'s hpZ);
    null: none, or the node with preset zeropp."""
    wire: WireSpec = Field(default_factory=WireSpec)
    """In which format each kind of message travels."""

    @classmethod
    def of(cls, preset: Preset) -> ShardingSpec:
        """A preset as the loader resolves it, with its own wires."""
        weights, gradients, optimizer = SHARDING_PRESETS[preset]
        return cls(preset=preset, weights=weights, gradients=gradients, optimizer=optimizer)

    def wires(self, precision: Precision) -> Wires:
        """The format of each message in a run of this precision."""
        formats = PRESET_WIRES.get(self.preset, (precision,) * 3) if self.preset else (precision,) * 3
        chosen = (self.wire.weights, self.wire.gradients, self.wire.network)
        weights, gradients, network = (own or usual for own, usual in zip(chosen, formats, strict=True))
        return Wires(
            weights=weights,
            gradients=gradients,
            network=network,
            block=self.wire.block,
            error_feedback=self.wire.error_feedback,
        )
