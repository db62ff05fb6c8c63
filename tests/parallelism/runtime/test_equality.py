"""Every layout learns what one rank learns: losses and gradient norms agree step by step."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from frontrunner.configs.sharding import SHARDING_PRESETS
from support.mutations import MUTATIONS
from support.ranks import run_ranks
from support.specs import run_spec
from support.training import Curve, curve

TOLERANCE = 1e-5
OPTIMIZER = {"learning_rate": 3e-3}

FEW = {"micro_batch_size": 4}  # four micro-batches a step: as good as sixteen, and faster
TWO_NODES = {"nodes": 2, "packages": 2, "devices": 2}
FRONTIER = {"nodes": 2, "packages": 4, "devices": 2}
LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor 2": {"devices": 2, "layout": {"tensor": 2, **FEW}},
    "tensor 2, sequence parallel": {"devices": 2, "layout": {"tensor": 2, "sequence_parallel": True, **FEW}},
    "pipeline 2": {"devices": 2, "layout": {"pipeline": 2, **FEW}},
    "pipeline 4": {"packages": 2, "devices": 2, "layout": {"pipeline": 4, **FEW}},
    "pipeline 2, virtual stages 2": {"devices": 2, "layout": {"pipeline": 2, "virtual_stages": 2, **FEW}},
    "tensor 2 x pipeline 2": {"packages": 2, "devices": 2, "layout": {"tensor": 2, "pipeline": 2, **FEW}},
    "recompute full": {"layout": {"recompute": "full"}},
    "recompute selective": {"layout": {"recompute": "selective"}},
    "micro-batch 4": {"layout": {"micro_batch_size": 4}},
    "recompute full, three_level": TWO_NODES | {"sharding": "three_level", "layout": {"recompute": "full"}},
    **{preset: TWO_NODES | {"sharding": preset} for preset in SHARDING_PRESETS},
    "replicas of (2, 2, 4)": TWO_NODES | {"sharding": (2, 2, 4)},
    "16 ranks, zeropp": FRONTIER | {"sharding": "zeropp"},
    "16 ranks, zero1": FRONTIER | {"sharding": "zero1"},
    "16 ranks, three_level": FRONTIER | {"sharding": "three_level"},
    "16 ranks, three_level, accumulation 4": FRONTIER
    | {"sharding": "three_level", "training": {"global_batch_size": 64}},
    "16 ranks, (2, 4, 8), tensor 2": FRONTIER | {"sharding": (2, 4, 8), "layout": {"tensor": 2}},
    "16 ranks, (2, 4, 8), tensor 2, sequence parallel": FRONTIER
    | {"sharding": (2, 4, 8), "layout": {"tensor": 2, "sequence_parallel": True}},
    "16 ranks, (2, 4, 8), pipeline 2": FRONTIER | {"sharding": (2, 4, 8), "layout": {"pipeline": 2}},
    "16 ranks, (2, 4, 8), pipeline 2, virtual stages 2": FRONTIER
    | {"sharding": (2, 4, 8), "layout": {"pipeline": 2, "virtual_stages": 2}},
}
OTHER_MODELS = [
    "tensor 2",
    "tensor 2, sequence parallel",
    "pipeline 2, virtual stages 2",
    "tensor 2 x pipeline 2",
    "zero3",
    "16 ranks, three_level",
    "recompute full, three_level",
]
CASES = [("gpt", name) for name in LAYOUTS] + [(m, name) for m in ("llama", "neox") for name in OTHER_MODELS]


@cache
def one_rank(model: str, global_batch_size: int) -> Curve:
    spec = run_spec(model=model, optimizer=OPTIMIZER, training={"global_batch_size": global_batch_size})
    found: Curve = run_ranks(1, curve, spec)[0]
    assert found.losses[-1] < found.losses[0] - 0.1, "the reference must learn, or equality says little"
    return found


def difference(found: Curve, reference: Curve) -> float:
    """Largest relative difference of any loss or gradient norm; infinite where one is not a number."""
    pairs = [
        *zip(found.losses, reference.losses, strict=True),
        *zip(found.norms, reference.norms, strict=True),
    ]
    return max(abs(a - b) / b if abs(a - b) < float("inf") else float("inf") for a, b in pairs)


@pytest.mark.parametrize(("model", "name"), CASES)
def test_layout_equals_one_rank(model: str, name: str) -> None:
    spec = run_spec(model=model, optimizer=OPTIMIZER, **LAYOUTS[name])
    curves = run_ranks(spec.world_size, curve, spec)
    reference = one_rank(model, spec.training.global_batch_size)
    assert difference(curves[0], reference) < TOLERANCE
    assert all(other.losses == curves[0].losses and other.norms == curves[0].norms for other in curves)


# Where a fault shows, if not on 16 ranks with three_level.
WHERE = {
    "no reduction over tensor ranks and tied stages": "pipeline 2",
    "megatron's default hops": "pipeline 2, virtual stages 2",
    "accumulation stops after one micro-batch": "16 ranks, three_level, accumulation 4",
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_fault_is_seen(mutation: str) -> None:
    name = WHERE.get(mutation, "16 ranks, three_level")
    spec = run_spec(optimizer=OPTIMIZER, **LAYOUTS[name])
    found = run_ranks(spec.world_size, curve, spec, mutation)[0]
    assert difference(found, one_rank("gpt", spec.training.global_batch_size)) > 10 * TOLERANCE
