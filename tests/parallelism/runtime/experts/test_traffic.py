"""The formulas of what tokens and experts' shards send against what the engine's transport counts."""

from __future__ import annotations

from typing import Any

import pytest

from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.dispatch import dispatch
from frontrunner.parallelism.planner.parameters import stage_units
from frontrunner.parallelism.planner.traffic import traffic
from support.ranks import run_ranks
from support.specs import SPARSE, run_spec
from support.traffic import sent_with_even_routers

#: Wide enough that the few bytes of counts do not matter, and that padding is little.
MODEL = SPARSE | {
    **{"num_layers": 2, "hidden_size": 64, "head_dim": 16, "vocab_size": 128, "padded_vocab_size": 128},
    "experts": {"num_experts": 16, "experts_per_token": 4, "ffn_hidden_size": 32},
}


@pytest.mark.parametrize(
    ("sharding", "layout"),
    [
        ("hsdp", {"expert": 8}),
        ("three_level", {"expert": 8, "dispatch": "flat"}),
        ("zero3", {"expert": 4}),
        ("three_level", {"expert": 2, "recompute": "full"}),
    ],
)
def test_the_formulas_say_what_is_sent(sharding: Any, layout: dict[str, Any]) -> None:
    spec = run_spec(
        model=MODEL,
        nodes=2,
        packages=2,
        devices=2,
        sharding=sharding,
        layout=layout,
        training={"global_batch_size": 16, "seq_len": 256},
    )
    cut = Layout.from_spec(spec)
    units = stage_units(spec.model, expert=cut.expert)
    formula = traffic(spec, cut, units).step(2)
    tokens = dispatch(spec, cut, 2).step(2)
    ranks = run_ranks(8, sent_with_even_routers, spec)
    counted = {level: sum(rank[level] for rank in ranks) / 8 for level in LEVELS}
    assert tokens["package"] > 0.1 * counted["package"]
    assert counted == pytest.approx({level: formula[level] + tokens[level] for level in LEVELS}, rel=0.05)
