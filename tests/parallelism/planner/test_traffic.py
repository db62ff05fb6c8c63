"""The formula of a step's bytes against what the engine's transport counts."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.configs.sharding import PRESET_WIRES
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.traffic import traffic, wire_bytes
from support.ranks import run_ranks
from support.specs import GPT, run_spec
from support.traffic import sent_by_phase

# Large enough that padding is little: 2 layers of 12 * 64^2 values, and an embedding of 128 * 64.
MODEL = GPT | {
    "num_layers": 2,
    "hidden_size": 64,
    "head_dim": 16,
    "ffn_hidden_size": 256,
    "vocab_size": 128,
    "padded_vocab_size": 128,
}


@pytest.mark.parametrize(
    ("sharding", "wire"),
    [
        (
            "three_level",
            dict(zip(("weights", "gradients", "network"), PRESET_WIRES["three_level"], strict=True)),
        ),
        ("zero3", None),
        ("zeropp", None),
        ("hsdp", None),
    ],
)
def test_the_formula_says_what_is_sent(sharding: Any, wire: dict[str, Any] | None) -> None:
    spec = run_spec(
        model=MODEL,
        nodes=2,
        packages=2,
        devices=2,
        sharding=sharding,
        wire={**wire, "block": 32} if wire else None,
        training={"global_batch_size": 24},
    )
    assert spec.grad_accum_steps == 3
    ranks = run_ranks(8, sent_by_phase, spec)
    formula = traffic(spec, Layout.from_spec(spec), ranks[0]["units"])
    for phase, expected in (("before", formula.before_update(3)), ("update", formula.update)):
        counted = {level: sum(rank[phase][level] for rank in ranks) / 8 for level in LEVELS}
        # A hundred bytes: the gradient norm.
        assert counted == pytest.approx(expected, rel=0.05, abs=100), phase


def test_a_value_on_the_wire() -> None:
    assert wire_bytes("bfloat16", 256) == 2
    assert wire_bytes("int8", 256) == 1 + 4 / 256
    assert wire_bytes("int4", 128) == 0.5 + 4 / 128
