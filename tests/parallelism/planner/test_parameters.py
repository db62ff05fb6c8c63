"""Counts of parameters against the models that the runtime builds."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.planner.parameters import stage_units, total_parameters
from support.parameters import unit_sizes
from support.ranks import run_ranks
from support.specs import MODELS, run_spec

PRESETS = [
    "gpt-1.4b",
    "gpt-22b",
    "gpt-175b",
    "gpt-1t",
    "gpt-neox-20b",
    "llama-2-7b",
    "llama-2-70b",
    "llama-3-8b",
    "olmo-2-7b",
    "qwen2.5-7b",
    "qwen3-8b",
]


def check(spec: RunSpec, stage: int, sizes: dict[str, int]) -> None:
    layout = spec.layout
    units = stage_units(spec.model, layout.tensor, layout.pipeline, stage)
    layers = {name: size for name, size in sizes.items() if name.startswith("layer")}
    assert sum(layers.values()) == units.layers
    assert next(iter(layers.values())) == units.first_layer
    assert sum(sizes.values()) == units.numel
    assert sizes.get("embedding", 0) == units.embedding or stage > 0


def test_presets_have_as_many_as_the_built_models() -> None:
    specs = []
    for preset in PRESETS:
        model = load_run("quickstart", [f"model={preset}"]).spec.model
        specs.append(run_spec().model_copy(update={"model": model}))
    (found,) = run_ranks(1, unit_sizes, specs)
    for spec, (stage, sizes) in zip(specs, found, strict=True):
        check(spec, stage, sizes)


@pytest.mark.parametrize("model", MODELS)
def test_each_rank_of_a_cut_model(model: str) -> None:
    cut: dict[str, Any] = {"tensor": 2, "pipeline": 2}
    specs = [
        run_spec(model=model, packages=2, devices=2, layout=cut),
        run_spec(model=model, packages=2, devices=2, layout=cut | {"sequence_parallel": True}),
    ]
    for rank in run_ranks(4, unit_sizes, specs):
        for spec, (stage, sizes) in zip(specs, rank, strict=True):
            check(spec, stage, sizes)


@pytest.mark.parametrize("model", ["llama", "qwen3"])
def test_ranks_that_share_a_key_hold_no_parameter_twice(model: str) -> None:
    spec = run_spec(model=model, packages=2, devices=2, layout={"tensor": 4})
    for ((stage, sizes),) in run_ranks(4, unit_sizes, [spec]):
        check(spec, stage, sizes)


def test_totals_are_the_published_ones() -> None:
    """In units of 1e9: Dash et al.'s table and the model cards."""
    published = {"gpt-22b": 22, "gpt-175b": 175, "gpt-1t": 1008, "llama-2-7b": 6.74, "llama-3-8b": 8.03}
    for preset, expected in published.items():
        model = load_run("quickstart", [f"model={preset}"]).spec.model
        assert total_parameters(model) / 1e9 == pytest.approx(expected, rel=0.01)
