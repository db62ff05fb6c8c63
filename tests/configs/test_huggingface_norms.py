"""Qwen3 and OLMo 2: norms of queries and keys, norms after attention and MLP, and layers with windows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import load_model, load_run
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of, family_of

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
OLMO2: dict[str, Any] = {
    "model_type": "olmo2",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 27648,
    "max_position_embeddings": 4096,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}
LAYERS = ["full_attention"] * 35


def read(folder: Path, config: dict[str, Any]) -> ModelSpec:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder / "config.json"))


def refused(folder: Path, config: dict[str, Any]) -> Violation:
    with pytest.raises(SpecError) as caught:
        read(folder, config)
    (violation,) = caught.value.violations
    return violation


def test_qwen3(tmp_path: Path) -> None:
    m = read(tmp_path, QWEN3)
    assert (m.qk_norm, m.norm_position, m.normalization) == ("head", "before", "rmsnorm")
    assert (m.num_heads, m.head_dim, m.hidden_size) == (32, 128, 2560)
    assert (m.qkv_bias, m.linear_bias, m.tie_embeddings, m.rotary_base) == (False, False, True, 1e6)
    few = {key: QWEN3[key] for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")}
    m = read(tmp_path, few | {"num_attention_heads": 64})
    assert (m.head_dim, m.norm_epsilon, m.max_position_embeddings) == (128, 1e-6, 32768)


def test_olmo2(tmp_path: Path) -> None:
    m = read(tmp_path, OLMO2)
    assert (m.qk_norm, m.norm_position, m.normalization) == ("full", "after", "rmsnorm")
    assert (m.num_heads, m.num_kv_heads, m.head_dim, m.norm_epsilon) == (40, 8, 128, 1e-6)
    few = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
    m = read(tmp_path, {key: OLMO2[key] for key in few})
    assert (m.num_kv_heads, m.norm_epsilon, m.ffn_hidden_size, m.rotary_base) == (40, 1e-5, 11008, 1e4)


@pytest.mark.parametrize(
    ("config", "path", "constraint"),
    [
        (QWEN3 | {"attention_bias": True}, "model.attention_bias", "only false is supported"),
        (OLMO2 | {"attention_bias": True}, "model.attention_bias", "only false is supported"),
        (QWEN3 | {"use_sliding_window": True, "sliding_window": 512}, "model.sliding_window", "seq_len 2048"),
        (
            QWEN3 | {"layer_types": [*LAYERS, "sliding_attention"]},
            "model.layer_types",
            "all must be full_attention",
        ),
        (QWEN3 | {"layer_types": "full"}, "model.layer_types", "all must be full_attention"),
        (
            QWEN3 | {"use_sliding_window": True, "layer_types": [*LAYERS, "chunked_attention"]},
            "model.layer_types",
            "all must be full_attention",
        ),
    ],
)
def test_what_cannot_be_expressed(tmp_path: Path, config: dict[str, Any], path: str, constraint: str) -> None:
    violation = refused(tmp_path, config)
    assert violation.path == path
    assert constraint in violation.constraint


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_window_that_is_switched_on_has_the_default_of_transformers(tmp_path: Path, family: str) -> None:
    config = QWEN3 | {"model_type": family, "use_sliding_window": True}
    del config["sliding_window"], config["attention_bias"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    given = [f"model={tmp_path / 'config.json'}", "training.seq_len=4096"]
    assert load_run("quickstart", [*given, "data=synthetic"]).spec.training.seq_len == 4096
    with pytest.raises(SpecError, match="shorter than training.seq_len 4097"):
        load_run("quickstart", [*given, "training.seq_len=4097", "data=synthetic"])


def test_layers_that_are_said_to_be_full_are(tmp_path: Path) -> None:
    assert read(tmp_path, QWEN3 | {"layer_types": [*LAYERS, "full_attention"]}).num_layers == 36
    windowed = QWEN3 | {"use_sliding_window": True, "sliding_window": 40960}
    assert read(tmp_path, windowed | {"layer_types": [*LAYERS, "sliding_attention"]}).num_layers == 36


@pytest.mark.parametrize(
    ("config", "change", "wrong"),
    [
        (QWEN3, {"qkv_bias": True}, {"model.qk_norm"}),
        (QWEN3, {"norm_position": "after"}, {"model.norm_position"}),
        (QWEN3, {"qk_norm": "full"}, {"model.qk_norm"}),
        (OLMO2, {"qk_norm": "head"}, {"model.norm_position"}),
        (OLMO2, {"linear_bias": True, "qkv_bias": True}, {"model.norm_position", "model.qk_norm"}),
    ],
)
def test_a_combination_of_no_family_is_refused(
    tmp_path: Path, config: dict[str, Any], change: dict[str, Any], wrong: set[str]
) -> None:
    model = read(tmp_path, config)
    assert family_of(model) == config["model_type"]
    with pytest.raises(SpecError) as caught:
        config_of(model.model_copy(update=change))
    assert {violation.path for violation in caught.value.violations} == wrong


def test_no_token_is_padding_that_would_not_be_trained(tmp_path: Path) -> None:
    """Olmo2Config takes token 1 for padding where nothing is said, whose embedding then has no gradient."""
    assert config_of(read(tmp_path, OLMO2))["pad_token_id"] is None
