"""Runs of a tiny model whose streams are watched."""

from __future__ import annotations

from typing import Any

from frontrunner.configs.schema import RunSpec
from support.specs import GPT, SPARSE, run_spec

STEPS = 2
QUANTISED = {"weights": "int8", "gradients": "int4", "network": "int8", "error_feedback": True}


def small(
    ranks: dict[str, Any],
    accumulation: int = 1,
    verify: int = 0,
    model: dict[str, Any] = GPT,
    **keys: Any,
) -> RunSpec:
    layout = keys.get("layout", {})
    size = ranks.get("nodes", 1) * ranks.get("packages", 1) * ranks.get("devices", 1)
    data = size // (layout.get("tensor", 1) * layout.get("pipeline", 1))
    training = {"steps": STEPS, "global_batch_size": accumulation * data}
    spec = run_spec(model=model | {"num_layers": 2}, training=training, **ranks, **keys)
    return spec.model_copy(update={"watch": spec.watch.model_copy(update={"verify_every_steps": verify})})


FOUR: dict[str, Any] = {"nodes": 2, "devices": 2}
SPECS = {
    "quantised": small(FOUR, 2, sharding="three_level", wire=QUANTISED),
    "verified": small(FOUR, sharding=(2, 2, 4), verify=1),
    "room": small(FOUR, sharding="ddp"),
    "tensor 2": small(FOUR, 2, sharding="zero3", layout={"tensor": 2, "sequence_parallel": True}),
    "pipeline 2": small(FOUR, 2, sharding="zero2", layout={"pipeline": 2}),
    "experts": small(
        FOUR,
        2,
        model=SPARSE,
        sharding="three_level",
        wire=QUANTISED,
        layout={"expert": 4, "dispatch_wire": "int8"},
    ),
    "experts of nodes": small(FOUR, 2, model=SPARSE, sharding="zero3", layout={"expert": 2}),
    "eight ranks": small(
        {"nodes": 2, "packages": 2, "devices": 2}, 2, sharding="three_level", wire=QUANTISED
    ),
}
