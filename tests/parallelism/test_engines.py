"""What the engines that we compare with cannot do is refused before anything starts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.engines import check_engine
from frontrunner.parallelism.layout import Layout
from support.specs import run_spec, saving

BFLOAT16 = dict.fromkeys(("weights", "gradients", "network"), "bfloat16")


def run_with(engine: str, *, secondary: int | None = None, kind: str = "cpu", **settings: Any) -> RunSpec:
    spec = run_spec(nodes=2, packages=2, devices=2, **settings)
    sharding = spec.layout.sharding.model_copy(update={"secondary": secondary})
    device = spec.machine.device.model_copy(update={"kind": kind})
    return spec.model_copy(
        update={
            "engine": engine,
            "layout": spec.layout.model_copy(update={"sharding": sharding}),
            "machine": spec.machine.model_copy(update={"device": device}),
        }
    )


def refused(spec: RunSpec) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        check_engine(spec, Layout.from_spec(spec))
    return {violation.path: violation.constraint for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("engine", "settings", "path", "reason"),
    [
        ("deepspeed", {"sharding": "three_level"}, "layout.sharding.preset", "no separate degrees"),
        (
            "deepspeed",
            {"training": {"precision": "bfloat16"}, "wire": BFLOAT16},
            "training.gradient_dtype",
            "does not sum in float32",
        ),
        ("deepspeed", {"sharding": (2, 2, 2)}, "layout.sharding.preset", "no separate degrees"),
        (
            "deepspeed",
            {"sharding": "zero3", "secondary": 2, "layout": {"tensor": 2}},
            "layout.tensor",
            "consecutive ranks",
        ),
        ("deepspeed", {"sharding": "zero2", "layout": {"pipeline": 2}}, "layout.pipeline", "do not combine"),
        (
            "deepspeed",
            {"sharding": "zero3", "wire": {"weights": "int8", "gradients": "float32", "network": "float32"}},
            "layout.sharding.wire.weights",
            "CPU accelerator lacks",
        ),
        (
            "deepspeed",
            {"sharding": "zero2", "wire": {"weights": "int8", "gradients": "float32", "network": "float32"}},
            "layout.sharding.wire.weights",
            "ZeRO-3 can only send",
        ),
        (
            "deepspeed",
            {
                "sharding": "zero3",
                "kind": "cuda",
                "wire": {"weights": "float32", "gradients": "int4", "network": "float32"},
            },
            "layout.sharding.wire.network",
            "both hops",
        ),
        (
            "deepspeed",
            {"sharding": "zero1", "training": {"precision": "float16"}},
            "training.precision",
            "here",
        ),
        (
            "deepspeed",
            {"sharding": "zero1", "layout": {"tensor": 2, "sequence_parallel": True}},
            "layout.sequence_parallel",
            "does not sum the gradients of norms",
        ),
        (
            "deepspeed",
            {"sharding": "zero1", "layout": {"tensor": 2}, "model": "qwen3"},
            "layout.tensor",
            "each tensor rank sees its own heads",
        ),
        ("fsdp", {"sharding": "ddp"}, "layout.sharding.preset", r"cannot express \(1, 1, 1\)"),
        ("fsdp", {"sharding": "three_level"}, "layout.sharding.preset", r"cannot express \(2, 4, 8\)"),
        ("fsdp", {"sharding": "hsdp", "layout": {"pipeline": 2}}, "layout.pipeline", "each stage"),
        ("fsdp", {"sharding": "zero3", "secondary": 2}, "layout.sharding.secondary", "no secondary"),
        ("fsdp", {"sharding": "zero3", "wire": BFLOAT16}, "layout.sharding.wire.weights", "float32"),
        (
            "fsdp",
            {"sharding": "zero3", "wire": {"error_feedback": True}},
            "layout.sharding.wire.error_feedback",
            "no error feedback",
        ),
        ("fsdp", {"sharding": "zero3", "training": {"compile": True}}, "training.compile", "not compiled"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_with_the_reason(
    engine: str, settings: dict[str, Any], path: str, reason: str
) -> None:
    found = refused(run_with(engine, **settings))
    assert re.search(reason, found[path])


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("native", {"sharding": "three_level", "layout": {"pipeline": 2}}),
        ("deepspeed", {"sharding": "ddp"}),
        ("deepspeed", {"sharding": "zero1", "layout": {"tensor": 2}}),
        ("deepspeed", {"sharding": "zero3", "secondary": 4}),
        (
            "deepspeed",
            {
                "sharding": "zero3",
                "secondary": 4,
                "kind": "cuda",
                "wire": {"weights": "int8", "gradients": "int4", "network": "int4"},
            },
        ),
        ("fsdp", {"sharding": "zero3", "layout": {"tensor": 2}}),
        ("fsdp", {"sharding": "zero2"}),
        ("fsdp", {"sharding": (2, 2, 2)}),
    ],
)
def test_what_an_engine_can_do_is_let_through(engine: str, settings: dict[str, Any]) -> None:
    spec = run_with(engine, **settings)
    check_engine(spec, Layout.from_spec(spec))


def test_the_quantiser_is_missed_where_auto_turns_out_to_be_a_cpu() -> None:
    quantised = {"weights": "int8", "gradients": "int4", "network": "int4"}
    spec = run_with("deepspeed", sharding="zero3", kind="auto", wire=quantised)
    layout = Layout.from_spec(spec)
    check_engine(spec, layout)
    check_engine(spec, layout, "cuda")
    with pytest.raises(SpecError, match="CPU accelerator"):
        check_engine(spec, layout, "cpu")


def test_checkpoints_are_the_native_engines() -> None:
    spec = saving(run_with("fsdp", sharding="zero3"), every_steps=5)
    assert "neither writes nor reads checkpoints" in refused(spec)["checkpoint.every_steps"]
