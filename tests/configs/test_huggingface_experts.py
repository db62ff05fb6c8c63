"""Mixtures of experts in a Hugging Face configuration: read as transformers reads it, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_run
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of, family_of

Write = Callable[..., Path]

MIXTRAL = {
    "model_type": "mixtral",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "router_aux_loss_coef": 0.02,
    "sliding_window": None,
}
QWEN2 = MIXTRAL | {
    "model_type": "qwen2_moe",
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "num_experts": 4,
}
QWEN3 = MIXTRAL | {"model_type": "qwen3_moe", "moe_intermediate_size": 32, "norm_topk_prob": True}
OLMOE = MIXTRAL | {"model_type": "olmoe", "num_experts": 4}


def read(config: dict[str, Any], write: Write) -> ModelSpec:
    write(json.dumps(config), "config.json")
    write("model: config.json\nmachine: workstation\ndata: synthetic\ntraining: {seq_len: 64}\n")
    return load_run("run.yaml").spec.model


def test_mixtral(write: Write) -> None:
    model = read(MIXTRAL, write)
    assert model.experts is not None
    assert model.experts.model_dump() == {
        "num_experts": 4,
        "experts_per_token": 2,
        "ffn_hidden_size": 96,
        "shared_experts": 0,
        "shared_gate": False,
        "first_dense_layers": 0,
        "every": 1,
        "router": "softmax",
        "normalize": True,
        "aux_loss": 0.02,
        "z_loss": 0.0,
    }
    assert (model.ffn_hidden_size, model.norm_epsilon, model.rotary_base) == (96, 1e-5, 1e6)
    assert family_of(model) == "mixtral"


def test_defaults_are_those_of_transformers(write: Write) -> None:
    """An almost empty configuration of each family, against the library itself."""
    config = pytest.importorskip("transformers").AutoConfig
    for name in ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe"):
        theirs = config.for_model(name)
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        given = {"model_type": name} | {size: getattr(theirs, size) for size in sizes}
        model = read(given, write)
        assert model.experts is not None
        assert model.experts.num_experts == theirs.num_experts
        assert model.experts.experts_per_token == theirs.num_experts_per_tok
        width = getattr(theirs, "moe_intermediate_size", theirs.intermediate_size)
        assert model.experts.ffn_hidden_size == width
        assert model.experts.normalize == getattr(theirs, "norm_topk_prob", True)
        assert model.experts.aux_loss == theirs.router_aux_loss_coef
        assert model.experts.every == getattr(theirs, "decoder_sparse_step", 1)
        assert model.num_layers == theirs.num_hidden_layers
        assert model.num_kv_heads == theirs.num_key_value_heads
        assert model.norm_epsilon == theirs.rms_norm_eps
        assert model.rotary_base == theirs.rope_parameters["rope_theta"]
        shared = getattr(theirs, "shared_expert_intermediate_size", 0)
        assert model.experts.shared_experts * model.experts.ffn_hidden_size == shared
        assert model.experts.shared_gate == bool(shared)


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts"])
def test_either_name_of_the_number_of_experts_counts(write: Write, key: str) -> None:
    config = {name: value for name, value in QWEN3.items() if name != "num_local_experts"} | {key: 6}
    model = read(config, write)
    assert model.experts is not None
    assert model.experts.num_experts == 6


@pytest.mark.parametrize(
    ("keys", "layers"),
    [
        ({}, [True] * 4),
        ({"decoder_sparse_step": 2}, [False, True, False, True]),
        ({"mlp_only_layers": [0, 1]}, [False, False, True, True]),
        ({"mlp_only_layers": [0, 1], "decoder_sparse_step": 2}, [False, False, False, True]),
    ],
)
def test_layers_with_experts_are_those_of_transformers(
    write: Write, keys: dict[str, Any], layers: list[bool]
) -> None:
    """transformers: not listed, and the step divides the number of the layer from 1."""
    for config in (QWEN2, QWEN3):
        model = read(config | keys, write)
        assert model.experts is not None
        assert model.experts.sparse_layers(4) == layers
        written = config_of(model)
        step, dense = written["decoder_sparse_step"], written["mlp_only_layers"]
        assert [i not in dense and (i + 1) % step == 0 for i in range(4)] == layers


@pytest.mark.parametrize(
    ("config", "path", "message"),
    [
        (QWEN3 | {"mlp_only_layers": [2]}, "mlp_only_layers", "must be the first layers"),
        (
            QWEN3 | {"mlp_only_layers": [0], "decoder_sparse_step": 2},
            "mlp_only_layers",
            "must be the first layers",
        ),
        (QWEN2 | {"shared_expert_intermediate_size": 40}, "shared_expert_intermediate_size", "multiple of"),
        (OLMOE | {"clip_qkv": 8.0}, "clip_qkv", "only none is supported"),
        (MIXTRAL | {"router_jitter_noise": 0.1}, "router_jitter_noise", "only 0.0 is supported"),
        (MIXTRAL | {"sliding_window": 16}, "sliding_window", "shorter than training.seq_len"),
        (QWEN2 | {"qkv_bias": False}, "qkv_bias", "only true is supported"),
    ],
)
def test_what_cannot_be_expressed(write: Write, config: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        read(config, write)
    (violation,) = raised.value.violations
    assert violation.path == f"model.{path}"
    assert message in violation.constraint


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3", "gpt_oss", "llama4_text", "kimi_k2"])
def test_other_mixtures_are_refused_with_the_reason(write: Write, name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name}: .*not supported"):
        read(MIXTRAL | {"model_type": name}, write)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"router": "sigmoid"}, "model.experts.router"),
        ({"first_dense_layers": 1, "every": 2}, "model.experts.every"),
    ],
)
def test_a_mixture_of_no_family_is_refused(write: Write, change: dict[str, Any], path: str) -> None:
    model = read(MIXTRAL, write)
    assert model.experts is not None
    other = model.model_copy(update={"experts": model.experts.model_copy(update=change)})
    with pytest.raises(SpecError) as raised:
        family_of(other)
    assert path in {violation.path for violation in raised.value.violations} | {"model.experts.every"}
