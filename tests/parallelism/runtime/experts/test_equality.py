"""Experts cut over ranks learn what one rank learns: losses, norms and balancing losses agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import SHARDING_PRESETS
from support.equality import OPTIMIZER, difference, one_rank, record, run_in_double, steps, tolerance
from support.specs import FEW, run_spec
from support.training import curve

RecordProperty: TypeAlias = Callable[[str, object], None]
NODE = {"packages": 2, "devices": 2}
TWO_NODES = NODE | {"nodes": 2}
FRONTIER = {"nodes": 2, "packages": 4, "devices": 2}
LAYOUTS: dict[str, dict[str, Any]] = {
    "expert 1": TWO_NODES | {"sharding": "three_level"},
    "expert 2": {"devices": 2, "layout": {"expert": 2, **FEW}},
    "expert 4": NODE | {"layout": {"expert": 4}},
    **{
        f"expert 8, {preset}": TWO_NODES | {"sharding": preset, "layout": {"expert": 8}}
        for preset in SHARDING_PRESETS
    },
    **{
        f"expert 2, {preset}": TWO_NODES | {"sharding": preset, "layout": {"expert": 2}}
        for preset in SHARDING_PRESETS
    },
    "expert 4, three_level": TWO_NODES | {"sharding": "three_level", "layout": {"expert": 4}},
    "expert 8, flat": TWO_NODES | {"sharding": "three_level", "layout": {"expert": 8, "dispatch": "flat"}},
    "expert 2, tensor 2": NODE | {"layout": {"expert": 2, "tensor": 2, **FEW}},
    "expert 2, tensor 2, sequence parallel": NODE
    | {"layout": {"expert": 2, "tensor": 2, "sequence_parallel": True, **FEW}},
    "expert 2, pipeline 2": NODE | {"layout": {"expert": 2, "pipeline": 2, **FEW}},
    "expert 2, pipeline 2, virtual stages 2": NODE
    | {"layout": {"expert": 2, "pipeline": 2, "virtual_stages": 2, **FEW}},
    "expert 4, recompute full": TWO_NODES
    | {"sharding": "three_level", "layout": {"expert": 4, "recompute": "full"}},
    "expert 2, recompute selective": {"devices": 2, "layout": {"expert": 2, "recompute": "selective", **FEW}},
    "16 ranks, expert 8, three_level, accumulation 4": FRONTIER
    | {"sharding": "three_level", "layout": {"expert": 8}, "training": {"global_batch_size": 64}},
    "16 ranks, expert 8, tensor 2, zero3": FRONTIER
    | {"sharding": "zero3", "layout": {"expert": 8, "tensor": 2}},
    "16 ranks, expert 2, tensor 2, pipeline 2, (2, 4, 4)": FRONTIER
    | {"sharding": (2, 4, 4), "layout": {"expert": 2, "tensor": 2, "pipeline": 2}},
}
#: Where a dense first layer and other scores could matter.
OF_SIGMOID = (
    "expert 1",
    "expert 2, zeropp",
    "expert 8, flat",
    "expert 2, tensor 2, sequence parallel",
    "expert 2, pipeline 2, virtual stages 2",
    "expert 4, recompute full",
    "16 ranks, expert 8, three_level, accumulation 4",
)
CASES = [("sparse", name) for name in LAYOUTS] + [("sigmoid", name) for name in OF_SIGMOID]


def layout_spec(name: str, model: str) -> RunSpec:
    keys = dict(LAYOUTS[name])
    training = steps(model) | keys.pop("training", {})
    return run_spec(model=model, optimizer=OPTIMIZER, training=training, **keys)


@pytest.mark.long_except(
    "sparse-expert 8, three_level",
    "sigmoid-expert 2, zeropp",
    "sparse-expert 2, tensor 2, sequence parallel",
    "sigmoid-expert 2, pipeline 2, virtual stages 2",
)
@pytest.mark.parametrize(("model", "name"), CASES)
def test_layout_equals_one_rank(model: str, name: str, record_property: RecordProperty) -> None:
    spec = layout_spec(name, model)
    curves = run_in_double(spec.world_size, curve, spec)
    found = difference(curves[0], one_rank(model, spec.training.global_batch_size))
    record(record_property, "rounding", found, tolerance(model))
    assert found < tolerance(model)
    assert all(other.losses == curves[0].losses and other.norms == curves[0].norms for other in curves)


@pytest.mark.parametrize(
    ("mutation", "name"),
    [
        ("experts are reduced like other parameters", "expert 2, zero3"),
        ("a token is lost on its way", "expert 8, three_level"),
        ("a token has the weight of its other expert", "expert 8, three_level"),
        ("the balancing loss counts each micro-batch as a step", "expert 4"),
        ("the router learns from one tensor rank", "expert 2, tensor 2"),
    ],
)
def test_fault_is_seen(mutation: str, name: str, record_property: RecordProperty) -> None:
    spec = layout_spec(name, "sparse")
    # Or the comparison of copies would find it first.
    spec = spec.model_copy(update={"watch": spec.watch.model_copy(update={"verify_every_steps": 0})})
    curves = run_in_double(spec.world_size, curve, spec, mutation)
    found = difference(curves[0], one_rank("sparse", spec.training.global_batch_size))
    record(record_property, "fault", found, tolerance("sparse"))
    assert found > 10 * tolerance("sparse")
