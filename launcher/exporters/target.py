"""Shared by the exporters: the sharding scheme of a run, and the messages for unsupported values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout


@dataclass(frozen=True)
class Exported:
    """A trainer's configuration as text, and notes on what it does not contain."""

    text: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One trainer. ``checked`` is the version whose options were checked.

    ``compiles``: its configuration can ask for compiled layers.
    """

    name: str
    checked: str
    export: Callable[[RunSpec, Layout], Exported]
    compiles: bool = False


class Refusals:
    """Collects values that a trainer does not support."""

    def __init__(self, trainer: str) -> None:
        self.trainer = trainer
        self.found: list[Violation] = []

    def unless(self, possible: bool, path: str, value: object, reason: str, fix: str) -> None:
        """Record a violation unless ``possible``."""
        if not possible:
            self.found.append(Violation(path, value, f"not supported by {self.trainer}: {reason}", fix))

    def check(self) -> None:
        """Raise SpecError with all violations, if any."""
        if self.found:
            raise SpecError(self.found)


def scheme(layout: Layout) -> str | None:
    """The scheme of the degrees: ddp, zero1, zero2, zero3, hsdp or None."""
    degrees = (layout.weights, layout.gradients, layout.optimizer)
    data = layout.data
    known = {
        (data, data, data): "zero3",
        (1, data, data): "zero2",
        (1, 1, data): "zero1",
        (1, 1, 1): "ddp",
    }
    if degrees in known:
        return known[degrees]
    return "hsdp" if len(set(degrees)) == 1 else None


def check_scheme(refusals: Refusals, spec: RunSpec, layout: Layout, known: tuple[str, ...]) -> str:
    """The scheme, which must be one of ``known``."""
    found = scheme(layout)
    degrees = f"{layout.weights}, {layout.gradients} and {layout.optimizer} of {layout.data} ranks"
    refusals.unless(
        found in known,
        "layout.sharding.preset",
        spec.layout.sharding.preset or "degrees",
        f"it cannot shard weights, gradients and optimizer over {degrees}",
        f"use one of: {', '.join(known)}",
    )
    return found or "none"


def check_wires(refusals: Refusals, spec: RunSpec, layout: Layout) -> None:
    """Requires messages in the run's precision, and no state that only our engine keeps."""
    precision = spec.training.precision
    wires = spec.layout.sharding.wires(precision)
    for key in ("weights", "gradients", "network"):
        wire = getattr(wires, key)
        refusals.unless(
            wire not in ("int8", "int4"),
            f"layout.sharding.wire.{key}",
            wire,
            "it does not quantise these messages",
            f"use {precision}",
        )
    refusals.unless(
        not wires.error_feedback,
        "layout.sharding.wire.error_feedback",
        True,
        "it has no error feedback",
        "remove it",
    )
    refusals.unless(
        layout.secondary == layout.weights,
        "layout.sharding.secondary",
        spec.layout.sharding.secondary or "node",
        "it keeps no second copy of the weights for the backward",
        "use preset zero3",
    )


def check_deepspeed(refusals: Refusals, spec: RunSpec, layout: Layout, sharding: str) -> None:
    """Requires what DeepSpeed's pipeline and precisions can do; ``sharding`` is the name of a scheme."""
    training = spec.training
    refusals.unless(
        sharding != "ddp" or training.precision != "bfloat16" or training.gradient_dtype != "float32",
        "training.gradient_dtype",
        "float32",
        "for bfloat16 weights that nothing shards DeepSpeed has no float32 sums",
        "use bfloat16, or set layout.sharding to zero1",
    )
    refusals.unless(
        layout.virtual_stages == 1,
        "layout.virtual_stages",
        layout.virtual_stages,
        "DeepSpeed's pipeline has no interleaved schedule",
        "use 1",
    )
    refusals.unless(
        layout.pipeline == 1 or sharding in ("ddp", "zero1"),
        "layout.pipeline",
        layout.pipeline,
        "DeepSpeed's ZeRO-2 and ZeRO-3 do not work with its pipeline",
        "use preset zero1, or pipeline 1",
    )


def check_key_values(refusals: Refusals, spec: RunSpec) -> None:
    """Requires whole key and value heads on each tensor rank."""
    heads, tensor = spec.model.num_kv_heads, spec.layout.tensor
    refusals.unless(
        heads % tensor == 0,
        "layout.tensor",
        tensor,
        f"tensor ranks would have to share its {heads} key and value heads, which was not checked there",
        f"use at most {heads}",
    )


def check_dense(refusals: Refusals, spec: RunSpec) -> None:
    """Requires a model without experts."""
    refusals.unless(
        spec.model.experts is None,
        "model.experts",
        "set",
        "only dense models are exported to it",
        "export to megatron",
    )


def check_schedule(refusals: Refusals, spec: RunSpec, known: tuple[str, ...]) -> None:
    """The learning rate's decay."""
    decay = spec.optimizer.decay
    refusals.unless(
        decay in known,
        "optimizer.decay",
        decay,
        "it does not have this decay",
        f"use one of: {', '.join(known)}",
    )
