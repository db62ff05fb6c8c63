"""Hugging Face configurations: seven families, and what cannot be expressed is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import Violation
from frontrunner.configs.load import examine, load_run
from frontrunner.configs.schema import ModelSpec

Write = Callable[..., Path]

GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
    "task_specific_params": {"text-generation": {"do_sample": True}},
}
PYTHIA = {
    "model_type": "gpt_neox",
    "hidden_act": "gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
MISTRAL = {
    "model_type": "mistral",
    "hidden_act": "silu",
    "hidden_size": 5120,
    "intermediate_size": 14336,
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 131072,
}
QWEN2 = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
RUN = "model: config.json\nmachine: workstation\ndata: synthetic\ntraining: {seq_len: 1024}\n"


def put(write: Write, config: dict[str, Any]) -> None:
    write(json.dumps(config, indent=2), "some-model/config.json")
    write(RUN.replace("config.json", "some-model/config.json"))


@pytest.fixture
def model(write: Write) -> Callable[[dict[str, Any]], ModelSpec]:
    def read(config: dict[str, Any]) -> ModelSpec:
        put(write, config)
        return load_run("run.yaml").spec.model

    return read


@pytest.fixture
def refused(write: Write) -> Callable[[dict[str, Any]], Violation]:
    def read(config: dict[str, Any]) -> Violation:
        put(write, config)
        (violation,) = examine("run.yaml").violations
        assert violation.file == "some-model/config.json"
        return violation

    return read


Model = Callable[[dict[str, Any]], ModelSpec]
Refused = Callable[[dict[str, Any]], Violation]


def test_gpt2(model: Model) -> None:
    m = model(GPT2)
    assert (m.name, m.num_layers, m.hidden_size, m.num_heads, m.ffn_hidden_size) == (
        "some-model",
        12,
        768,
        12,
        3072,
    )
    assert (m.position_embedding, m.max_position_embeddings, m.vocab_size) == ("learned", 1024, 50257)
    assert (m.normalization, m.activation, m.linear_bias, m.qkv_bias) == (
        "layernorm",
        "gelu_tanh",
        True,
        True,
    )
    assert (m.tie_embeddings, m.attention_dropout, m.hidden_dropout) == (True, 0.1, 0.1)


def test_gpt_neox(model: Model) -> None:
    m = model(PYTHIA)
    assert (m.num_layers, m.hidden_size, m.num_heads, m.ffn_hidden_size, m.vocab_size) == (
        6,
        512,
        8,
        2048,
        50304,
    )
    assert (m.position_embedding, m.rotary_fraction, m.rotary_base) == ("rotary", 0.25, 10000.0)
    assert (m.activation, m.parallel_residual, m.tie_embeddings, m.linear_bias) == ("gelu", True, False, True)
    assert model(PYTHIA | {"hidden_act": "gelu_fast"}).activation == "gelu_tanh"
    assert model({k: v for k, v in PYTHIA.items() if k != "rotary_pct"}).rotary_fraction == 0.25


def test_llama(model: Model) -> None:
    m = model(LLAMA)
    assert (m.num_heads, m.num_kv_heads, m.head_dim, m.ffn_hidden_size) == (32, 8, 128, 14336)
    assert (m.position_embedding, m.rotary_base, m.rotary_fraction, m.rotary_scaling_factor) == (
        "rotary",
        5e5,
        1,
        8,
    )
    assert (m.normalization, m.norm_epsilon, m.activation) == ("rmsnorm", 1e-5, "swiglu")
    assert (m.linear_bias, m.qkv_bias, m.tie_embeddings, m.hidden_dropout) == (False, False, False, 0)
    assert model(LLAMA | {"attention_bias": True, "mlp_bias": True}).linear_bias is True


def test_llama_with_few_keys_takes_the_defaults_of_transformers(model: Model) -> None:
    keys = ("model_type", "hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    m = model({key: LLAMA[key] for key in keys})
    assert (m.num_kv_heads, m.ffn_hidden_size, m.max_position_embeddings) == (32, 11008, 2048)
    assert (m.norm_epsilon, m.rotary_base, m.rotary_scaling_factor, m.tie_embeddings) == (
        1e-6,
        1e4,
        None,
        False,
    )


def test_mistral(model: Model) -> None:
    m = model(MISTRAL)
    assert (m.head_dim, m.num_heads, m.hidden_size, m.rotary_base) == (128, 32, 5120, 1e6)
    assert (m.qkv_bias, m.linear_bias, m.activation) == (False, False, "swiglu")
    without = {key: value for key, value in MISTRAL.items() if key != "num_key_value_heads"}
    assert model(without).num_kv_heads == 8
    assert model(MISTRAL | {"num_key_value_heads": None}).num_kv_heads == 32


def test_qwen2(model: Model) -> None:
    m = model(QWEN2)
    assert (m.qkv_bias, m.linear_bias, m.tie_embeddings, m.num_kv_heads) == (True, False, True, 2)
    assert (m.norm_epsilon, m.rotary_base) == (1e-6, 1e6)


def test_rope_parameters_of_transformers_5(model: Model) -> None:
    m = model(LLAMA | {"rope_scaling": None, "rope_parameters": {"rope_theta": 7e5, "rope_type": "default"}})
    assert (m.rotary_base, m.rotary_scaling_factor) == (7e5, None)
    neox = {"rope_theta": 2e4, "partial_rotary_factor": 0.5, "rope_type": "default"}
    m = model(PYTHIA | {"rope_parameters": neox})
    assert (m.rotary_base, m.rotary_fraction) == (2e4, 0.5)


@pytest.mark.parametrize(
    ("config", "path", "constraint"),
    [
        (LLAMA | {"model_type": "bloom"}, "model", "gpt2, gpt_neox, llama, mistral, qwen2, qwen3, olmo2"),
        (LLAMA | {"model_type": ["llama"]}, "model", "model_type must be one of"),
        (
            {k: v for k, v in LLAMA.items() if k != "model_type"} | {"architectures": ["X"]},
            "model",
            "must be one of",
        ),
        (LLAMA | {"num_local_experts": 8}, "model.num_local_experts", "experts are not supported"),
        (LLAMA | {"hidden_act": ["silu"]}, "model.activation", "must be one of silu, swish"),
        (LLAMA | {"hidden_act": "gelu"}, "model.activation", "must be one of silu, swish"),
        (GPT2 | {"activation_function": "relu"}, "model.activation", "gelu_new"),
        (GPT2 | {"activation_function": None}, "model.activation", "gelu_new"),
        (GPT2 | {"embd_pdrop": 0.2}, "model.embd_pdrop", "must equal resid_pdrop 0.1"),
        (GPT2 | {"scale_attn_by_inverse_layer_idx": True}, "model.scale_attn_by_inverse_layer_idx", "false"),
        (GPT2 | {"scale_attn_weights": False}, "model.scale_attn_weights", "only true"),
        (PYTHIA | {"attention_bias": False}, "model.attention_bias", "only true is supported"),
        (LLAMA | {"attention_bias": True}, "model.attention_bias", "must equal mlp_bias False"),
        (LLAMA | {"mlp_bias": True}, "model.attention_bias", "must equal mlp_bias True"),
        (LLAMA | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "model.rope_scaling", "only llama3"),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "model.rope_scaling", "only llama3"),
        (
            LLAMA | {"rope_scaling": LLAMA["rope_scaling"] | {"low_freq_factor": 2.0}},
            "model.rope_scaling",
            "factors 1 and 4 from 8192",
        ),
        (
            LLAMA | {"rope_scaling": LLAMA["rope_scaling"] | {"rope_type": "yarn"}},
            "model.rope_scaling",
            "only llama3",
        ),
        (
            LLAMA | {"rope_scaling": {k: v for k, v in LLAMA["rope_scaling"].items() if k != "factor"}},
            "model.rope_scaling",
            "only llama3",
        ),
        (
            LLAMA | {"rope_scaling": None, "rope_parameters": {"partial_rotary_factor": 0.5}},
            "model.rope_scaling",
            "rotates whole heads",
        ),
        (LLAMA | {"rope_scaling": "x"}, "model.rope_scaling", "only llama3"),
        (LLAMA | {"rope_parameters": {"full": {"rope_theta": 1.0}}}, "model.rope_scaling", "only llama3"),
        (MISTRAL | {"sliding_window": 512}, "model.sliding_window", "shorter than training.seq_len 1024"),
        (MISTRAL | {"sliding_window": "long"}, "model.sliding_window", "is not supported"),
        (
            MISTRAL | {"sliding_window": 4096, "max_position_embeddings": "long"},
            "model.max_position_embeddings",
            "must be an integer",
        ),
        (QWEN2 | {"sliding_window": 512, "use_sliding_window": True}, "model.sliding_window", "seq_len 1024"),
        (LLAMA | {"hidden_size": "4096"}, "model.hidden_size", "must be an integer, not text"),
        (LLAMA | {"num_key_value_heads": 5}, "model.num_kv_heads", "must divide num_heads 32"),
    ],
)
def test_what_cannot_be_expressed(
    refused: Refused, config: dict[str, Any], path: str, constraint: str
) -> None:
    violation = refused(config)
    assert violation.path == path
    assert constraint in violation.constraint


def test_the_line_is_that_of_the_json(refused: Refused) -> None:
    lines = json.dumps(GPT2 | {"n_layer": "12"}, indent=2).splitlines()
    assert refused(GPT2 | {"n_layer": "12"}).line == 1 + next(
        i for i, x in enumerate(lines) if "n_layer" in x
    )


def test_a_size_that_is_not_there_is_missing_in_the_run(write: Write) -> None:
    put(write, {key: value for key, value in LLAMA.items() if key != "vocab_size"})
    (violation,) = examine("run.yaml").violations
    assert (violation.file, violation.line, violation.path) == ("run.yaml", 1, "model.vocab_size")
    assert violation.constraint == "is missing"


def test_a_window_as_long_as_the_sequence_is_full_attention(model: Model) -> None:
    assert model(MISTRAL | {"sliding_window": 1024}).num_layers == 40
    assert model(QWEN2 | {"sliding_window": 512}).num_layers == 24


def test_the_default_length_counts_too(write: Write) -> None:
    put(write, MISTRAL | {"sliding_window": 2047})
    write("model: some-model/config.json\nmachine: workstation\ndata: synthetic\n")
    (violation,) = examine("run.yaml").violations
    assert "shorter than training.seq_len 2048" in violation.constraint
    assert examine("run.yaml", ["training.seq_len=2047"]).violations == ()
    put(write, MISTRAL | {"sliding_window": 1000, "max_position_embeddings": 1000})
    write("model: some-model/config.json\nmachine: workstation\ndata: synthetic\n")
    assert load_run("run.yaml").spec.training.seq_len == 1000


def test_whole_heads_may_be_said_outright(model: Model) -> None:
    whole = {"rope_theta": 7e5, "partial_rotary_factor": 1.0, "rope_type": "default"}
    assert model(LLAMA | {"rope_scaling": None, "rope_parameters": whole}).rotary_base == 7e5


def test_what_is_said_outright_may_be_what_is_expressed_anyway(model: Model) -> None:
    assert model(PYTHIA | {"attention_bias": True}).linear_bias is True
    assert model(GPT2 | {"scale_attn_weights": True, "add_cross_attention": False}).num_layers == 12
    assert model(MISTRAL | {"num_local_experts": 1}).num_layers == 40
    assert model({key: value for key, value in GPT2.items() if "pdrop" not in key}).hidden_dropout == 0.1
    assert model(GPT2 | {"resid_pdrop": None, "embd_pdrop": None}).hidden_dropout == 0


def test_a_length_that_is_no_number_is_the_one_mistake(write: Write) -> None:
    put(write, MISTRAL | {"sliding_window": 4096})
    (violation,) = examine("run.yaml", ["training.seq_len=long"]).violations
    assert violation.path == "training.seq_len"


def test_fields_over_a_configuration(write: Write) -> None:
    put(write, LLAMA)
    write(
        "model: {extends: some-model/config.json, num_layers: 2, name: short}\n"
        "machine: workstation\ndata: synthetic\n"
    )
    m = load_run("run.yaml", ["model.hidden_dropout=0.1"]).spec.model
    assert (m.num_layers, m.name, m.num_kv_heads, m.hidden_dropout) == (2, "short", 8, 0.1)
    assert load_run("quickstart", ["model=some-model/config.json"]).spec.model.num_layers == 32


def test_a_json_that_is_no_configuration_is_read_as_fields(write: Write) -> None:
    write(json.dumps({"hidden": 3, "num_layers": 2}), "some-model/config.json")
    write(RUN.replace("config.json", "some-model/config.json"))
    found = {violation.path for violation in examine("run.yaml").violations}
    assert found == {"model.hidden", "model.hidden_size", "model.num_heads", "model.vocab_size"}
