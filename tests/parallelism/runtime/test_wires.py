"""Quantised wires, overlap and what happens around their edges."""

from __future__ import annotations

from typing import Any

import pytest

from frontrunner.configs.sharding import Preset
from support.equality import OPTIMIZER, STEPS, apart, difference, run_in_double, tolerance
from support.ranks import run_ranks
from support.specs import GPT, run_spec
from support.training import (
    curve,
    gathered_units,
    gathered_weights,
    reduced_gradients,
    reductions_at_once,
    with_bad_gradient,
    without_a_gradient,
)

TWO_NODES: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}


@pytest.mark.parametrize("preset", ["three_level", "zeropp"])
def test_quantised_wires_learn_alike_with_fewer_bytes(preset: Preset) -> None:
    exact, quantised = (
        run_ranks(
            8,
            curve,
            run_spec(**TWO_NODES, sharding=preset, wire=wire, optimizer=OPTIMIZER, training=STEPS),
        )[0]
        for wire in (None, {"block": 64})
    )
    assert quantised.losses != exact.losses
    assert quantised.losses[-1] == pytest.approx(exact.losses[-1], rel=0.01)
    # int8 and int4 of float32, with their scales and padding.
    assert quantised.sent["package"] < 0.35 * exact.sent["package"]
    assert quantised.sent["network"] < 0.55 * exact.sent["network"]


def test_all_ranks_compute_with_the_same_weights() -> None:
    """A rank decodes its own shard too, rather than keep what it has exactly."""
    spec = run_spec(**TWO_NODES, sharding="three_level", wire={"weights": "int8"}, training={"steps": 2})
    gathered = run_ranks(8, gathered_weights, spec)
    assert all(other == gathered[0] for other in gathered)
    exact = run_ranks(
        8, gathered_weights, run_spec(**TWO_NODES, sharding="three_level", training={"steps": 2})
    )
    assert exact[0] != gathered[0]


def test_error_feedback_keeps_what_the_wire_lost() -> None:
    """Over eight micro-batches the sum that arrives is nearer to the true one than without."""
    # One node, so that nothing takes the network's format, which makes the shards of all three alike.
    wire = {"weights": "float32", "gradients": "int4", "network": "int8", "block": 32}
    exact, lossy, corrected = (
        run_ranks(
            8,
            reduced_gradients,
            run_spec(
                packages=4, devices=2, sharding="three_level", wire=w, training={"global_batch_size": 64}
            ),
        )[0]
        for w in (wire | {"gradients": "float32"}, wire, wire | {"error_feedback": True})
    )
    errors = [sum(abs(a - b) for a, b in zip(found, exact, strict=True)) for found in (lossy, corrected)]
    assert 0 < errors[1] < 0.8 * errors[0]


def test_an_overflow_does_not_stay_in_the_error_feedback() -> None:
    spec = run_spec(
        **TWO_NODES,
        sharding="three_level",
        wire={"error_feedback": True},
        training={"precision": "float16", "global_batch_size": 8},
    )
    for first, second in run_ranks(8, with_bad_gradient, spec, float("inf")):
        assert first[0] is True
        assert second[0] is False


def test_two_units_are_gathered_at_most() -> None:
    spec = run_spec(**TWO_NODES, sharding="zero3", training={"steps": 1})
    for most, names in run_ranks(8, gathered_units, spec):
        assert most == 2
        assert names == []  # nothing is left gathered after the step


def test_gradients_of_two_units_travel_at_most() -> None:
    spec = run_spec(**TWO_NODES, sharding="three_level", training={"steps": 1})
    assert run_ranks(8, reductions_at_once, spec) == [2] * 8


@pytest.mark.long_except("three_level")
@pytest.mark.parametrize("preset", ["zero1", "zero3", "three_level"])
def test_a_parameter_without_gradient_counts_as_zero(preset: Preset) -> None:
    keys: dict[str, Any] = {"optimizer": OPTIMIZER, "training": STEPS}
    one = run_in_double(1, without_a_gradient, run_spec(**keys))[0]
    many = run_in_double(8, without_a_gradient, run_spec(**TWO_NODES, sharding=preset, **keys))
    for losses in many:
        assert apart(losses, one) < tolerance("gpt")


def test_sizes_that_nothing_divides_and_one_rank_a_level() -> None:
    odd = GPT | {
        "hidden_size": 36,
        "head_dim": 9,
        "ffn_hidden_size": 50,
        "vocab_size": 61,
        "padded_vocab_size": 67,
    }
    training = STEPS | {"global_batch_size": 15}
    reference = run_in_double(1, curve, run_spec(model=odd, optimizer=OPTIMIZER, training=training))[0]
    shapes: list[dict[str, Any]] = [{"nodes": 3}, {"nodes": 1, "packages": 3}]
    for shape in shapes:
        spec = run_spec(model=odd, sharding="three_level", optimizer=OPTIMIZER, training=training, **shape)
        assert difference(run_in_double(3, curve, spec)[0], reference) < tolerance("gpt")
