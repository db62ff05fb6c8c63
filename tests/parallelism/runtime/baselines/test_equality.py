"""DeepSpeed and FSDP train the same model on the same data: their curves are those of one native rank."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from support.engines import train_with_engine
from support.equality import OPTIMIZER, STEPS, apart, run_in_double, tolerance
from support.specs import run_spec

#: DeepSpeed adds 1e-6 to the gradient's norm before it clips, which moves curves by 1e-7 at most.
DEEPSPEED_TOLERANCE = 1e-6
PRELOAD: dict[str, tuple[str, ...]] = {"deepspeed": ("support.deepspeed_loaded",), "fsdp": ()}
CASES: dict[str, dict[str, Any]] = {
    "fsdp zero3": {"engine": "fsdp", "sharding": "zero3"},
    "fsdp zero2": {"engine": "fsdp", "sharding": "zero2", "model": "llama"},
    "fsdp hsdp": {"engine": "fsdp", "sharding": "hsdp"},
    "fsdp zero3, tensor 2": {
        "engine": "fsdp",
        "sharding": "zero3",
        "layout": {"tensor": 2, "sequence_parallel": True},
    },
    "deepspeed zero2": {"engine": "deepspeed", "sharding": "zero2"},
    "deepspeed zero3": {"engine": "deepspeed", "sharding": "zero3", "model": "llama"},
    "deepspeed hpZ": {"engine": "deepspeed", "sharding": "zero3", "secondary": 2},
    "fsdp zero3, tensor 2, qk_norm head": {
        "engine": "fsdp",
        "sharding": "zero3",
        "layout": {"tensor": 2},
        "model": "qwen3",
    },
    "deepspeed zero1, tensor 2, qk_norm full": {
        "engine": "deepspeed",
        "sharding": "zero1",
        "layout": {"tensor": 2},
        "model": "olmo2",
    },
    "deepspeed zero1, tensor 2": {"engine": "deepspeed", "sharding": "zero1", "layout": {"tensor": 2}},
}


@cache
def one_rank(model: str) -> tuple[list[float], list[float], float]:
    spec = run_spec(model=model, layout={"micro_batch_size": 4}, optimizer=OPTIMIZER, training=STEPS)
    (found,) = run_in_double(1, train_with_engine, spec)
    return found  # type: ignore[no-any-return]


@pytest.mark.long_except("fsdp zero3", "deepspeed zero3")
@pytest.mark.parametrize("name", CASES)
def test_a_peer_learns_what_one_rank_learns(name: str) -> None:
    case = dict(CASES[name])
    model, secondary, engine = case.pop("model", "gpt"), case.pop("secondary", None), case.pop("engine")
    spec = run_spec(model=model, nodes=2, devices=2, optimizer=OPTIMIZER, training=STEPS, **case)
    sharding = spec.layout.sharding.model_copy(update={"secondary": secondary})
    spec = spec.model_copy(
        update={"engine": engine, "layout": spec.layout.model_copy(update={"sharding": sharding})}
    )
    assert spec.grad_accum_steps >= 4
    limit = tolerance(model) if engine == "fsdp" else DEEPSPEED_TOLERANCE
    expected_losses, expected_norms, expected_validation = one_rank(model)
    for losses, norms, validation in run_in_double(4, train_with_engine, spec, preload=PRELOAD[engine]):
        assert apart(losses, expected_losses) < limit
        assert apart(norms, expected_norms) < limit
        assert apart([validation], [expected_validation]) < limit
