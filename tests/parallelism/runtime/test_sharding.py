"""What a rank holds and sends is what the lattice says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from frontrunner.configs.sharding import SHARDING_PRESETS, Preset
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.runtime.sharding.shard_unit import ALIGNMENT, Geometry
from support.ranks import run_ranks
from support.specs import GPT, run_spec
from support.training import curve

TWO_NODES: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
UNITS = GPT["num_layers"] + 1


def parameters() -> int:
    """Parameters of the test model, by hand: tied embedding, positions, layers, final norm."""
    h, f = GPT["hidden_size"], GPT["ffn_hidden_size"]
    layer = (3 * h * h + 3 * h) + (h * h + h) + (h * f + f) + (f * h + h) + 4 * h
    total: int = (
        GPT["padded_vocab_size"] * h + GPT["max_position_embeddings"] * h + GPT["num_layers"] * layer + 2 * h
    )
    return total


@pytest.mark.long_except("*-bfloat16", "zeropp-float32")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("preset", SHARDING_PRESETS)
def test_bytes_held_equal_the_formula(preset: Preset, precision: str) -> None:
    wire = dict.fromkeys(("weights", "gradients", "network"), precision)
    spec = run_spec(**TWO_NODES, sharding=preset, wire=wire, training={"precision": precision, "steps": 1})
    layout = Layout.from_spec(spec)
    weight, gradient, state = (4, 4, 8) if precision == "float32" else (2, 4, 12)
    held = run_ranks(8, curve, spec)
    padding = UNITS * layout.data * ALIGNMENT
    for rank in held:
        assert rank.bytes_held["secondary"] == (0 if preset != "zeropp" else rank.bytes_held["weights"] * 2)
        for kind, per_parameter, degree in (
            ("weights", weight, layout.weights),
            ("gradients", gradient, layout.gradients),
            ("optimizer", state, layout.optimizer),
        ):
            exact = per_parameter * parameters() / degree
            assert exact <= rank.bytes_held[kind] < exact + per_parameter * padding / degree


def test_padding_of_a_real_layer_on_384_devices() -> None:
    layer = 12 * 6144**2  # a layer of the 22B model
    layout = Layout(48, 8, 2, 1, 1, 1, 2, 8, 384, 2)
    padded = Geometry.of(layer + 13 * 6144, layout, layout.position(0)).padded
    assert padded / (layer + 13 * 6144) < 1.001


@pytest.mark.parametrize("degrees", [(1, 1, 1), (2, 8, 16), (2, 4, 8), (1, 16, 16), (1, 1, 16), (4, 4, 4)])
def test_shards_nest_and_tile(degrees: tuple[int, int, int]) -> None:
    layout = Layout(2, 8, 2, 1, 1, 1, *degrees, secondary=degrees[0])
    covered = torch.zeros(math.ceil(1000 / 128) * 128, dtype=torch.int)
    for data in range(16):
        geometry = Geometry.of(1000, layout, layout.position(data))
        assert geometry.weights.start <= geometry.gradients.start <= geometry.optimizer.start
        assert geometry.optimizer.end <= geometry.gradients.end <= geometry.weights.end
        assert [
            geometry.padded // s.size for s in (geometry.weights, geometry.gradients, geometry.optimizer)
        ] == list(degrees)
        covered[slice(*geometry.optimizer)] += 1
    assert (covered == layout.data // layout.optimizer).all()


def test_three_level_crosses_the_network_once_per_step() -> None:
    """With four times the micro-batches package and node carry more, the network no more."""
    sent = []
    for batch in (8, 32):
        spec = run_spec(
            **TWO_NODES, sharding="three_level", training={"global_batch_size": batch, "steps": 2}
        )
        ranks = run_ranks(8, curve, spec)
        sent.append({level: sum(rank.sent[level] for rank in ranks) for level in ranks[0].sent})
    scalar = 16 * 8  # the norm's all-reduce is the same in both
    assert sent[0]["network"] == sent[1]["network"] > scalar
    assert sent[1]["package"] > 3 * sent[0]["package"]
