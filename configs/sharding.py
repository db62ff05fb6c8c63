"""How each kind of state is sharded over data-parallel ranks, and the format of its messages."""

from typing import Annotated, Literal, Self

from pydantic import Field

from frontrunner.configs.types import Frozen, PositiveInt, say

Level = Literal["package", "node", "all"]
Degree = Annotated[
    Level | PositiveInt,
    say("must be a level (package, node, all) or a number of ranks", "write one of these"),
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
    """Format of each kind of message; int8 and int4 are quantised in blocks.

    The default follows the preset. zeropp: int8 weights and int4 gradients, on the network too. three_level:
    int8 weights and int4 gradients, bfloat16 on the network. Others: the run's precision.
    """

    weights: Wire | None = None
    """Weights, in all-gathers for use and after updates."""
    gradients: Wire | None = None
    """Gradients inside the block that is reduced every micro-batch."""
    network: Wire | None = None
    """Gradients that are reduced across blocks once per step."""
    block: Literal[32, 64, 128, 256, 512, 1024, 2048] = 256
    """Elements per scale, in int8 and int4."""
    error_feedback: bool = False
    """Add the quantisation error to the next micro-batch's gradients (costs a copy of the gradients)."""


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
    """Over how many data-parallel ranks each kind of state is sharded: a preset, levels or numbers.

    The loader resolves a preset into the three degrees and keeps its name for display.
    """

    preset: Preset | None = None
    """A named triple of degrees, in place of the three keys."""
    weights: Degree = SHARDING_PRESETS["three_level"][0]
    """Data-parallel ranks that share one copy of the weights: a level or a number."""
    gradients: Degree = SHARDING_PRESETS["three_level"][1]
    """Data-parallel ranks that share one copy of the gradients; a multiple of weights."""
    optimizer: Degree = SHARDING_PRESETS["three_level"][2]
    """Data-parallel ranks that share one copy of the optimizer state; a multiple of gradients that divides
    the data-parallel ranks."""
    secondary: Degree | None = None
    """Ranks that share a second copy of the weights for the backward (ZeRO++'s hpZ); null: no second copy,
    or the node with preset zeropp."""
    wire: WireSpec = Field(default_factory=WireSpec)
    """Format of each kind of message."""
    communicators: Literal["separate", "shared"] = "separate"
    """separate: gathers of weights and reductions of gradients have communicators of their own, and overlap.
    shared: one for each set of ranks, which takes less memory; a gather waits for the reduction before it."""

    @classmethod
    def of(cls, preset: Preset) -> Self:
        """A preset as the loader resolves it, with its own wires."""
        weights, gradients, optimizer = SHARDING_PRESETS[preset]
        return cls(preset=preset, weights=weights, gradients=gradients, optimizer=optimizer)

    def wires(self, precision: Precision) -> Wires:
        """The format of each message in a run with this precision."""
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
