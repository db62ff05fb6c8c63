"""Mixtures of experts: counts of parameters and FLOPs against published models."""

from __future__ import annotations

from typing import Any

import pytest

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner.flops import (
    attention_core_flops_per_token,
    hardware_flops_per_token,
    model_flops_per_token,
)
from frontrunner.parallelism.planner.parameters import (
    active_parameters,
    expert_parameters,
    layer_parameters,
    sparse_before,
    stage_units,
    total_parameters,
)
from support.experts import MIXED, MIXTRAL, OLMOE, QWEN3, as_model

#: Total and active parameters in units of 1e9: arXiv 2401.04088; the cards of Qwen3-30B-A3B and OLMoE-1B-7B.
PUBLISHED = {"mixtral": (MIXTRAL, 46.7, 12.9), "qwen3": (QWEN3, 30.5, 3.3), "olmoe": (OLMOE, 6.9, 1.3)}


def mixed(**others: Any) -> ModelSpec:
    return as_model(MIXED | others)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    """One digit after the point, rounded or cut off."""
    model, total, active = PUBLISHED[name]
    spec = as_model(model)
    assert total_parameters(spec) / 1e9 == pytest.approx(total, abs=0.1)
    assert active_parameters(spec) / 1e9 == pytest.approx(active, abs=0.1)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_token_costs_two_flops_a_parameter_that_multiplies_it(name: str) -> None:
    """And attention's core. The embedding and norms multiply nothing, nor does a bias."""
    spec = as_model(PUBLISHED[name][0])
    hidden, layers = spec.hidden_size, spec.num_layers
    norms = (2 * layers + 1) * hidden
    norms += {"mixtral": 0, "qwen3": layers * 2 * 128, "olmoe": layers * 2 * hidden}[name]
    products = active_parameters(spec) - norms - spec.padded_vocab_size * hidden
    core = layers * attention_core_flops_per_token(spec, 4096)
    assert model_flops_per_token(spec, 4096) == 3 * (2 * products + core)
    assert hardware_flops_per_token(spec, 4096, "selective") == model_flops_per_token(spec, 4096) + core
    head = 2 * spec.padded_vocab_size * hidden
    again = model_flops_per_token(spec, 4096) * 4 // 3 - head
    assert hardware_flops_per_token(spec, 4096, "full") == again


def test_dense_models_have_only_active_parameters() -> None:
    model = load_run("quickstart", ["model=llama-3-8b"]).spec.model
    assert active_parameters(model) == total_parameters(model)
    assert expert_parameters(model) == sparse_before(model, 32) == stage_units(model).experts == 0


def test_layers_with_experts_are_those_of_the_specification() -> None:
    for first in (0, 1, 3):
        for every in (1, 2, 3, 4):
            model = mixed(experts=MIXED["experts"] | {"first_dense_layers": first, "every": every})
            assert model.experts
            sparse = model.experts.sparse_layers(12)
            assert [sparse_before(model, count) for count in range(13)] == [
                sum(sparse[:count]) for count in range(13)
            ]


def test_a_layer_by_hand() -> None:
    """Hidden 4096, 32 query and 8 key heads of 128; two shared experts of 512, a gate, a router of 8."""
    model = mixed()
    attention = 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 2 * 4096
    shared, routing = 3 * 4096 * 1024, 4096 * 8 + 4096
    assert layer_parameters(model, 1, sparse=True) == attention + shared + routing
    assert layer_parameters(model, 1) == attention + 3 * 4096 * 14336
    cut = (attention - 2 * 4096 + shared) // 4 + 2 * 4096 + routing
    assert layer_parameters(model, 4, sparse=True) == cut
    assert expert_parameters(model, 4) == 3 * 4096 * 128


@pytest.mark.parametrize(("pipeline", "virtual"), [(1, 1), (2, 1), (3, 1), (6, 1), (2, 3), (3, 2), (2, 6)])
def test_stages_hold_the_model_between_them(pipeline: int, virtual: int) -> None:
    model = mixed()
    assert model.experts
    sparse = model.experts.sparse_layers(12)  # layers 3, 6 and 9
    length = 12 // pipeline // virtual
    found = []
    for stage in range(pipeline):
        own = [layer for layer in range(12) if layer // length % pipeline == stage]
        units = stage_units(model, 2, pipeline, stage, 4, virtual)
        assert units.experts == sum(sparse[layer] for layer in own) * 2 * 3 * 4096 * 256
        assert units.first_experts == sparse[own[0]] * 2 * 3 * 4096 * 256
        found.append(units)
    assert sum(units.experts for units in found) == 3 * 2 * 3 * 4096 * 256
    assert sum(units.numel for units in found) == stage_units(model, 2, expert=4).numel
