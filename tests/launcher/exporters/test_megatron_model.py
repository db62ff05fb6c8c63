"""megatron-core's GPTModel from exported arguments: our parameters, and our first loss."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("megatron.core")

from frontrunner.launcher.exporters import megatron
from frontrunner.parallelism.layout import Layout
from support.megatron_model import Both, compared
from support.ranks import run_ranks
from support.specs import GPT, LLAMA, run_spec

#: Float32 rounding gives up to 2e-6 here, the smallest difference of models (the two GELUs) 1.2e-4.
SAME = 1e-5
# Without padded rows, which only its loss counts.
WHOLE = {"vocab_size": 64}
MODELS: dict[str, dict[str, Any]] = {
    "gpt": GPT | WHOLE,
    "gelu_tanh": GPT | WHOLE | {"activation": "gelu_tanh"},
    "gelu without biases": GPT | WHOLE | {"linear_bias": False, "qkv_bias": False},
    "gelu with qkv biases": GPT | WHOLE | {"linear_bias": False, "tie_embeddings": False},
    "gpt with rmsnorm": GPT | WHOLE | {"normalization": "rmsnorm", "norm_epsilon": 1e-2},
    "wide head": GPT | WHOLE | {"head_dim": 16, "ffn_hidden_size": 91},
    "rotary gpt": GPT | WHOLE | {"position_embedding": "rotary", "rotary_fraction": 0.5},
    "swiglu with biases": GPT | WHOLE | {"activation": "swiglu"},
    "llama": LLAMA | WHOLE,
    "llama-tied": LLAMA | WHOLE | {"tie_embeddings": True, "num_kv_heads": 1, "rotary_base": 5e5},
    "llama-scaled": LLAMA | WHOLE | {"rotary_scaling_factor": 8.0, "rotary_base": 1e9},
    "qwen2": LLAMA | WHOLE | {"qkv_bias": True, "norm_epsilon": 1e-6, "rotary_base": 1e6},
    "qwen3": LLAMA | WHOLE | {"qk_norm": "head", "head_dim": 12, "norm_epsilon": 1e-2},
    "layernorm llama": LLAMA | WHOLE | {"normalization": "layernorm", "norm_epsilon": 1e-2},
}


def command_line(model: dict[str, Any]) -> str:
    spec = run_spec(model=model)
    return megatron.TARGET.export(spec, Layout.from_spec(spec)).text


def run(cases: list[tuple[dict[str, Any], str]]) -> list[Both]:
    found: list[Both] = run_ranks(1, compared, cases)[0]
    return found


def test_it_builds_our_model() -> None:
    found = run([(model, command_line(model)) for model in MODELS.values()])
    for name, both in zip(MODELS, found, strict=True):
        assert both.parameters[0] == both.parameters[1], name
        assert both.difference < SAME, name


#: A model, and what is changed in it before Megatron-LM gets its arguments.
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gelu": (MODELS["gpt"], {"activation": "gelu_tanh"}),
    "gelu_tanh": (MODELS["gelu_tanh"], {"activation": "gelu"}),
    "epsilon": (MODELS["gpt with rmsnorm"], {"norm_epsilon": 1e-5}),
    "fraction": (MODELS["rotary gpt"], {"rotary_fraction": 1.0}),
    "base": (MODELS["llama-tied"], {"rotary_base": 10000.0}),
    "scaling": (MODELS["llama-scaled"], {"rotary_scaling_factor": None}),
    "qk_norm": (MODELS["qwen3"], {"qk_norm": "none"}),
    "norm": (MODELS["gelu with qkv biases"], {"norm_epsilon": 1e-1}),
}


def test_another_model_has_another_loss() -> None:
    """Each difference that the losses must show, so that equal losses mean an equal model."""
    found = run([(model, command_line(model | change)) for model, change in OTHERS.values()])
    for name, both in zip(OTHERS, found, strict=True):
        assert both.difference > 3 * SAME, name


def test_without_a_refusal_it_would_build_the_exact_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(megatron, "COMBINATIONS", ())
    bare = {"linear_bias": False, "qkv_bias": False}
    tanh = MODELS["gelu_tanh"] | bare
    (both, exact) = run([(tanh, command_line(tanh)), (tanh | {"activation": "gelu"}, command_line(tanh))])
    assert both.difference > 3 * SAME
    assert exact.difference < SAME
