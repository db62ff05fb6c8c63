"""Compiled layers compute what layers compute: losses and norms agree with a rank that compiles none.

In float64, as in ``test_equality``: compiled sums have another order, and no other difference.
"""

from __future__ import annotations

from typing import Any

import pytest

from support.compiled import captured_curve
from support.equality import OPTIMIZER, STEPS, difference, one_rank, run_in_double, tolerance
from support.specs import FEW, run_spec

TWO_NODES = {"nodes": 2, "packages": 2, "devices": 2}
CASES: dict[str, dict[str, Any]] = {
    "one rank": {"layout": FEW},
    "recompute selective": {"layout": {"recompute": "selective", **FEW}},
    "recompute full, three_level": TWO_NODES | {"sharding": "three_level", "layout": {"recompute": "full"}},
    "tensor 2": {"devices": 2, "layout": {"tensor": 2, **FEW}},
    "tensor 2, sequence parallel": {"devices": 2, "layout": {"tensor": 2, "sequence_parallel": True, **FEW}},
    "pipeline 2, virtual stages 2": {"devices": 2, "layout": {"pipeline": 2, "virtual_stages": 2, **FEW}},
}


@pytest.mark.long_except("one rank-gpt")
@pytest.mark.parametrize("model", ["gpt", "llama"])
@pytest.mark.parametrize("name", CASES)
def test_compiled_layers_learn_the_same(name: str, model: str) -> None:
    """With the graphs that are captured, forward and backward, before a compiler of kernels sees them."""
    spec = run_spec(model=model, optimizer=OPTIMIZER, training=STEPS | {"compile": True}, **CASES[name])
    for found in run_in_double(spec.world_size, captured_curve, spec):
        assert difference(found, one_rank(model)) < tolerance(model)
