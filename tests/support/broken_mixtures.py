"""Runs with experts that break one rule, as rows of ``tests/configs/test_rules.py``."""

from __future__ import annotations

MOE = "moe-quickstart"  # 4 layers of 8 experts; 8 devices of 2 nodes, expert 2

BROKEN_MIXTURES: list[tuple[str, list[str], str, str, str]] = [
    (
        MOE,
        ["model.experts.experts_per_token=9"],
        "model.experts.experts_per_token",
        "must be at most num_experts 8",
        "use at most 8",
    ),
    (
        MOE,
        ["model.experts.first_dense_layers=4"],
        "model.experts.first_dense_layers",
        "leaves none of 4 layers with experts",
        "use at most 3",
    ),
    (
        MOE,
        ["model.experts.shared_gate=true"],
        "model.experts.shared_gate",
        "needs shared_experts",
        "use false, or set model.experts.shared_experts to 1",
    ),
    (MOE, ["model.linear_bias=true"], "model.linear_bias", "must be false with model.experts", "use false"),
    (
        MOE,
        ["training.compile=true"],
        "training.compile",
        "is not supported with model.experts",
        "use false",
    ),
    (MOE, ["layout.expert=3"], "layout.expert", "must divide num_experts 8", "use 1, 2, 4 or 8"),
    (
        MOE,
        ["layout.expert=8", "layout.tensor=2"],
        "layout.expert",
        "must divide the 4 data-parallel ranks",
        "use 1, 2 or 4",
    ),
    ("quickstart", ["layout.expert=2"], "layout.expert", "needs model.experts", "use 1"),
    (
        MOE,
        ["layout.sharding.communicators=shared"],
        "layout.sharding.communicators",
        "must be separate with layout.expert 2",
        "use separate",
    ),
]
