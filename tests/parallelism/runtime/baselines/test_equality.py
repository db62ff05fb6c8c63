"""DeepSpeed and FSDP train the same model on the same data: their curves are those of one native rank."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from support.engines import train_with_engine
from support.ranks import run_ranks
from support.specs import run_spec

TOLERANCE = 1e-5
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
    "deepspeed zero1, tensor 2": {"engine": "deepspeed", "sharding": "zero1", "layout": {"tensor": 2}},
}


@cache
def one_rank(model: str) -> tuple[list[float], list[float], float]:
    spec = run_spec(model=model, layout={"micro_batch_size": 4}, optimizer={"learning_rate": 3e-3})
    (found,) = run_ranks(1, train_with_engine, spec)
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_a_peer_learns_what_one_rank_learns(name: str) -> None:
    case = dict(CASES[name])
    model, secondary, engine = case.pop("model", "gpt"), case.pop("secondary", None), case.pop("engine")
    spec = run_spec(model=model, nodes=2, devices=2, optimizer={"learning_rate": 3e-3}, **case)
    sharding = spec.layout.sharding.model_copy(update={"secondary": secondary})
    spec = spec.model_copy(
        update={"engine": engine, "layout": spec.layout.model_copy(update={"sharding": sharding})}
    )
    assert spec.grad_accum_steps >= 4
    for losses, norms, validation in run_ranks(4, train_with_engine, spec):
        expected = one_rank(model)
        assert losses == pytest.approx(expected[0], rel=TOLERANCE)
        assert norms == pytest.approx(expected[1], rel=TOLERANCE)
        assert validation == pytest.approx(expected[2], rel=TOLERANCE)
