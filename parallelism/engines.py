"""Reports what DeepSpeed and FSDP cannot do, before anything starts."""

from __future__ import annotations

from collections.abc import Iterator

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout

_NATIVE = "set engine to native"


def check_engine(spec: RunSpec, layout: Layout, device: str | None = None) -> None:
    """Raise SpecError with everything in a run that its engine cannot express.

    ``device`` is what ``auto`` resolves to on a rank, ``cuda`` or ``cpu``.
    """
    if spec.engine == "native":
        return
    found = list(_common(spec, layout))
    kind = device or spec.machine.device.kind
    if spec.engine == "deepspeed":
        found += [*_deepspeed(spec, layout, kind), *_unsummed(spec, layout)]
    else:
        found += _fsdp(spec, layout)
    if found:  # the engine is what was chosen, where the rest is a default
        raise SpecError(v.at({"engine": f"{v.path} {v.constraint}"}) for v in found)


def check_deepspeed(spec: RunSpec, layout: Layout) -> None:
    """Raise SpecError with what DeepSpeed's ZeRO cannot express on a GPU, whatever the run's engine."""
    found = list(_deepspeed(spec, layout, "cuda"))
    if spec.layout.sharding.wire.error_feedback:
        constraint = "DeepSpeed's error feedback (LoCo) differs: it decays the error that it adds"
        found.append(Violation("layout.sharding.wire.error_feedback", True, constraint, "use false"))
    if layout.pipeline > 1 and layout.gradients > 1:
        constraint = "must be 1: DeepSpeed's ZeRO-2 and 3 do not combine with pipeline stages"
        found.append(
            Violation(
                "layout.pipeline", layout.pipeline, constraint, "use 1, or set layout.sharding to zero1"
            )
        )
    if layout.virtual_stages > 1:
        constraint = "must be 1: DeepSpeed's pipeline has no interleaved schedule"
        found.append(Violation("layout.virtual_stages", layout.virtual_stages, constraint, "use 1"))
    if found:
        raise SpecError(found)


def _common(spec: RunSpec, layout: Layout) -> Iterator[Violation]:
    if layout.pipeline > 1:
        constraint = (
            "must be 1: DeepSpeed's ZeRO-2 and 3 do not combine with pipeline stages, and its pipeline only "
            "takes models built from its own classes"
            if spec.engine == "deepspeed"
            else "must be 1: FSDP would free and gather the weights in each micro-batch of each stage"
        )
        yield Violation("layout.pipeline", layout.pipeline, constraint, f"use 1, or {_NATIVE}")
    if spec.training.precision == "float16":
        constraint = f"engine {spec.engine} supports only float32 and bfloat16 here"
        yield Violation("training.precision", "float16", constraint, f"use bfloat16, or {_NATIVE}")
    if spec.training.compile:
        constraint = f"layers are not compiled with engine {spec.engine}, which hooks their parts"
        yield Violation("training.compile", True, constraint, f"use false, or {_NATIVE}")
    if spec.model.experts is not None:
        constraint = f"engine {spec.engine} trains only dense models here"
        yield Violation("model.experts", "set", constraint, f"use null, or {_NATIVE}")
    if spec.layout.sharding.wire.error_feedback:
        constraint = f"engine {spec.engine} has no error feedback here"
        yield Violation("layout.sharding.wire.error_feedback", True, constraint, f"use false, or {_NATIVE}")
    for key in ("every_steps", "every_minutes", "start_from"):
        if value := getattr(spec.checkpoint, key):
            constraint = (
                f"engine {spec.engine} is for comparison only: it neither writes nor reads checkpoints"
            )
            yield Violation(f"checkpoint.{key}", value, constraint, f"use null, or {_NATIVE}")


def _deepspeed(spec: RunSpec, layout: Layout, device: str) -> Iterator[Violation]:
    data = layout.data
    degrees = (layout.weights, layout.gradients, layout.optimizer)
    stages = {(1, 1, 1), (1, 1, data), (1, data, data), (data, data, data)}
    if degrees not in stages:
        constraint = (
            f"DeepSpeed has no separate degrees for weights, gradients and optimizer: {degrees} does not "
            f"match ddp, zero1, zero2 or zero3 over {data} data-parallel ranks"
        )
        preset = spec.layout.sharding.preset or "degrees"
        yield Violation(
            "layout.sharding.preset", preset, constraint, f"use ddp, zero1, zero2 or zero3, or {_NATIVE}"
        )
        return
    if spec.training.precision == "bfloat16" and layout.optimizer == 1:
        yield from unsharded_sums(spec)
    if layout.secondary < layout.weights and layout.tensor > 1:
        constraint = (
            f"must be 1 with secondary weights: DeepSpeed's hpZ groups are consecutive ranks, which hold "
            f"different slices of the weights with tensor {layout.tensor}"
        )
        yield Violation("layout.tensor", layout.tensor, constraint, f"use 1, or {_NATIVE}")
    wires = spec.layout.sharding.wires(spec.training.precision)
    quantised = {
        "weights": (wires.weights, "int8"),
        "gradients": (wires.gradients, "int4"),
        "network": (wires.network, "int4"),
    }
    for key, (wire, own) in quantised.items():
        path = f"layout.sharding.wire.{key}"
        if wire == spec.training.precision:
            continue
        if wire != own or layout.weights == 1:
            constraint = f"DeepSpeed's ZeRO-3 can only send {spec.training.precision} or {own} here"
            yield Violation(path, wire, constraint, f"use {spec.training.precision}, or {_NATIVE}")
        elif device == "cpu":
            constraint = "DeepSpeed's quantizer is a CUDA operator, which its CPU accelerator lacks"
            yield Violation(path, wire, constraint, f"use {spec.training.precision}, or {_NATIVE}")
    if (wires.gradients == "int4") != (wires.network == "int4"):
        constraint = "DeepSpeed quantises either both hops of the gradients or neither"
        yield Violation("layout.sharding.wire.network", wires.network, constraint, f"use {wires.gradients}")


def unsharded_sums(spec: RunSpec) -> Iterator[Violation]:
    """float32 sums at stage 0: 0.19 stops, and older versions shard the optimizer states all the same."""
    if spec.training.gradient_dtype == "float32":
        constraint = "DeepSpeed does not sum in float32 for bfloat16 weights where it shards nothing"
        fix = "use bfloat16, or set layout.sharding to zero1"
        yield Violation("training.gradient_dtype", "float32", constraint, fix)


def _unsummed(spec: RunSpec, layout: Layout) -> Iterator[Violation]:
    """Parameters that all tensor ranks hold, whose gradients DeepSpeed does not sum over them."""
    if spec.layout.sequence_parallel:
        constraint = "DeepSpeed does not sum the gradients of norms, of which each tensor rank sees a part"
        yield Violation("layout.sequence_parallel", True, constraint, f"use false, or {_NATIVE}")
    if spec.model.qk_norm == "head" and layout.tensor > 1:
        constraint = (
            "must be 1 with qk_norm head: DeepSpeed does not sum the gradients of these norms, "
            "of which each tensor rank sees its own heads"
        )
        yield Violation("layout.tensor", layout.tensor, constraint, f"use 1, or {_NATIVE}")


def _fsdp(spec: RunSpec, layout: Layout) -> Iterator[Violation]:
    data = layout.data
    degrees = (layout.weights, layout.gradients, layout.optimizer)
    sharded = len(set(degrees)) == 1 and degrees[0] > 1
    if not sharded and degrees != (1, data, data):
        constraint = (
            f"FSDP cannot express {degrees}: it cuts weights, gradients and optimizer over the same ranks "
            "(zero3, hsdp, or three equal degrees above 1), or keeps the weights gathered (zero2)"
        )
        preset = spec.layout.sharding.preset or "degrees"
        yield Violation(
            "layout.sharding.preset", preset, constraint, f"use zero2, zero3 or hsdp, or {_NATIVE}"
        )
    if layout.secondary < layout.weights:
        constraint = "FSDP has no secondary weights"
        yield Violation(
            "layout.sharding.secondary", layout.secondary, constraint, f"use {layout.weights}, or {_NATIVE}"
        )
    wires = spec.layout.sharding.wires(spec.training.precision)
    for key in ("weights", "gradients", "network"):
        wire = getattr(wires, key)
        if wire != spec.training.precision:
            constraint = f"FSDP can only send the run's precision, {spec.training.precision}"
            fix = f"use {spec.training.precision}, or {_NATIVE}"
            yield Violation(f"layout.sharding.wire.{key}", wire, constraint, fix)
