"""Precision, random masks, faults in gradients, and values at the start."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from frontrunner.parallelism.learning_rate import learning_rate
from frontrunner.parallelism.runtime.sharding.optimizer import LossScale
from frontrunner.parallelism.runtime.sharding.parameters import Parameter, initial_values
from support.ranks import run_ranks
from support.specs import FEW, GPT, run_spec
from support.training import checksum, curve, masks, with_bad_gradient

TWO_NODES: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
DROPOUT = GPT | {"attention_dropout": 0.3, "hidden_dropout": 0.3}


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_follows_float32(precision: str) -> None:
    keys: dict[str, Any] = {"optimizer": {"learning_rate": 3e-3}}
    exact = run_ranks(1, curve, run_spec(layout=FEW, training={"steps": 5}, **keys))[0]
    spec = run_spec(
        **TWO_NODES,
        sharding="three_level",
        training={"precision": precision, "steps": 5},
        **keys,
    )
    half = run_ranks(8, curve, spec)[0]
    assert half.losses[-1] == pytest.approx(exact.losses[-1], rel=0.01)
    assert half.losses != exact.losses


@pytest.mark.long_except("full-layout2", "selective-layout[01]")
@pytest.mark.parametrize("layout", [{}, {"tensor": 2}, {"tensor": 2, "sequence_parallel": True}])
@pytest.mark.parametrize("mode", ["full", "selective"])
def test_recomputed_forward_draws_the_same_masks(layout: dict[str, Any], mode: str) -> None:
    devices = layout.get("tensor", 1)
    curves = [
        run_ranks(
            devices,
            curve,
            run_spec(
                model=DROPOUT,
                devices=devices,
                layout=layout | FEW | {"recompute": recompute},
                training={"steps": 3},
            ),
        )[0]
        for recompute in ("none", mode)
    ]
    assert curves[0].norms == curves[1].norms


def test_tensor_ranks_share_masks_of_copies_only() -> None:
    spec = run_spec(packages=2, devices=2, layout={"tensor": 2})
    ranks = run_ranks(4, masks, spec)
    assert (
        ranks[0][0] == ranks[1][0] != ranks[2][0]
    )  # ranks 0 and 1 are one tensor group, 2 another data rank
    assert len({tuple(inside) for _, inside in ranks}) == 4


@pytest.mark.long_except("inf")
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_overflow_on_one_rank_skips_the_step_on_all(value: float) -> None:
    spec = run_spec(**TWO_NODES, sharding="ddp", training={"precision": "float16"})
    before = run_ranks(8, checksum, spec)
    for rank, (first, second) in enumerate(run_ranks(8, with_bad_gradient, spec, value)):
        assert first == (True, 2.0**15, before[rank])
        assert second[0] is False
        assert second[2] != before[rank]


def test_loss_scale_halves_and_doubles() -> None:
    scale = LossScale(True, initial=4.0, interval=2)
    values = []
    for overflow in (True, False, False, True, True, True):
        scale.update(overflow)
        values.append(scale.value)
    assert values == [2.0, 2.0, 4.0, 2.0, 1.0, 1.0]


def test_learning_rate_warms_up_and_decays() -> None:
    spec = run_spec(optimizer={"learning_rate": 1.0, "min_learning_rate": 0.1, "warmup_steps": 4}).optimizer
    rates = [learning_rate(spec, step, 24) for step in range(26)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14] == pytest.approx(0.55)  # half-way down the cosine
    assert rates[24] == rates[25] == pytest.approx(0.1)


def _parameter(tensor: int, rank: int, split: int | None, stacked: int = 1) -> Parameter:
    shape = [12, 10]
    if split is not None:
        shape[split] //= tensor
    held = range(stacked)
    return Parameter(
        "w", tuple(shape), (12, 10), split, stacked, held, rank, tensor, 0.5, True, False, True, False
    )


@pytest.mark.parametrize("block", [1, 30, 1 << 20])
def test_slices_are_cut_from_the_same_whole(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontrunner.parallelism.runtime.sharding.parameters.BLOCK_ELEMENTS", block)
    whole = initial_values(_parameter(1, 0, None), seed=7)
    rows = [initial_values(_parameter(2, rank, 0), seed=7) for rank in range(2)]
    columns = [initial_values(_parameter(2, rank, 1), seed=7) for rank in range(2)]
    gated = [initial_values(_parameter(2, rank, 0, stacked=2), seed=7) for rank in range(2)]
    assert torch.equal(torch.cat(rows), whole)
    assert torch.equal(torch.cat(columns, dim=1), whole)
    assert torch.equal(torch.cat([gated[0][:3], gated[1][:3], gated[0][3:], gated[1][3:]]), whole)
    assert not torch.equal(initial_values(_parameter(1, 0, None), seed=8), whole)
