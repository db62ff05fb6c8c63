"""Hugging Face configurations that we write: read back they are the same model, or the model is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import load_model
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of, family_of

SIZES: dict[str, Any] = {"num_layers": 2, "hidden_size": 24, "num_heads": 4, "vocab_size": 60}
BIASED = {"linear_bias": True, "qkv_bias": True, "normalization": "layernorm"}
NEOX = SIZES | {"position_embedding": "rotary"}
LLAMA = NEOX | {"normalization": "rmsnorm", "activation": "swiglu", "linear_bias": False}

USUAL: tuple[dict[str, Any], ...] = (
    SIZES
    | {
        "position_embedding": "learned",
        "num_kv_heads": 4,
        "head_dim": 6,
        "activation": "gelu",
        "parallel_residual": False,
    }
    | BIASED,
    NEOX | {"num_kv_heads": 4, "head_dim": 6, "activation": "gelu_tanh"} | BIASED,
    LLAMA | {"rotary_fraction": 1.0, "parallel_residual": False},
    LLAMA | {"rotary_fraction": 1.0, "parallel_residual": False, "qk_norm": "head", "qkv_bias": False},
    LLAMA
    | {"rotary_fraction": 1.0, "parallel_residual": False, "qkv_bias": False}
    | {"qk_norm": "full", "norm_position": "after"},
)


def read_back(model: ModelSpec, folder: Path) -> ModelSpec:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(model)))
    return load_model(str(folder / "config.json")).model_copy(update={"name": model.name})


def refused(**fields: Any) -> dict[str, Violation]:
    with pytest.raises(SpecError) as caught:
        family_of(ModelSpec(**SIZES | fields))
    return {violation.path: violation for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("fields", "family"),
    [
        (SIZES, "gpt2"),
        (SIZES | {"activation": "gelu", "tie_embeddings": False}, "gpt2"),
        (NEOX, "gpt_neox"),
        (
            NEOX | {"rotary_fraction": 0.75, "parallel_residual": True, "rotary_scaling_factor": 8.0},
            "gpt_neox",
        ),
        (LLAMA, "llama"),
        (LLAMA | {"num_kv_heads": 2, "head_dim": 8, "rotary_scaling_factor": 8.0}, "llama"),
        (LLAMA | {"linear_bias": True}, "llama"),
        (LLAMA | {"qkv_bias": True}, "qwen2"),
        (LLAMA | {"hidden_size": 30, "head_dim": 8}, "mistral"),
        (LLAMA | {"qk_norm": "head", "head_dim": 8, "hidden_size": 30}, "qwen3"),
        (LLAMA | {"qk_norm": "full", "norm_position": "after", "num_kv_heads": 2}, "olmo2"),
        (LLAMA | {"hidden_size": 30, "head_dim": 8, "qkv_bias": True}, "qwen2"),
    ],
)
def test_families(fields: dict[str, Any], family: str, tmp_path: Path) -> None:
    model = ModelSpec(**fields)
    assert family_of(model) == config_of(model)["model_type"] == family
    assert read_back(model, tmp_path / "model") == model


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    """Any combination of what a model has, three of four of them with a family's usual values."""
    shared = draw(st.sampled_from([1, 1, 2]))
    vocab_size = draw(st.integers(1, 300))
    fields: dict[str, Any] = {
        "num_layers": draw(st.integers(1, 3)),
        "hidden_size": draw(st.sampled_from([24, 24, 30])),
        "num_heads": 4,
        "num_kv_heads": 4 // shared,
        "head_dim": draw(st.sampled_from([6, 6, 8])),
        "ffn_hidden_size": draw(st.integers(1, 200)),
        "vocab_size": vocab_size,
        "padded_vocab_size": draw(st.sampled_from([-(-vocab_size // 128) * 128, vocab_size, 999])),
        "max_position_embeddings": draw(st.integers(1, 5000)),
        "position_embedding": draw(st.sampled_from(["learned", "rotary"])),
        "rotary_base": draw(st.floats(1, 1e7)),
        "rotary_fraction": draw(st.sampled_from([1.0, 1.0, 0.75])),
        "rotary_scaling_factor": draw(st.sampled_from([None, None, 8.0, 32.0])),
        "normalization": draw(st.sampled_from(["layernorm", "rmsnorm"])),
        "norm_position": draw(st.sampled_from(["before", "before", "after"])),
        "qk_norm": draw(st.sampled_from(["none", "none", "head", "full"])),
        "norm_epsilon": draw(st.floats(1e-9, 1)),
        "activation": draw(st.sampled_from(["gelu", "gelu_tanh", "swiglu"])),
        "parallel_residual": draw(st.sampled_from([False, False, True])),
        "linear_bias": draw(st.booleans()),
        "qkv_bias": draw(st.booleans()),
        "tie_embeddings": draw(st.booleans()),
        "attention_dropout": draw(st.floats(0, 0.9)),
        "hidden_dropout": draw(st.floats(0, 0.9)),
        "init_std": draw(st.floats(1e-6, 1)),
    }
    fields["head_dim"] = 8 if fields["hidden_size"] == 30 else fields["head_dim"]
    return ModelSpec(**fields | draw(st.sampled_from([{}, *USUAL])) | {"vocab_size": vocab_size})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models())
def test_a_model_is_read_back_or_refused(tmp_path: Path, model: ModelSpec) -> None:
    try:
        family_of(model)
    except SpecError as error:
        assert all(getattr(model, v.path.removeprefix("model.")) == v.value for v in error.violations)
        return
    found = read_back(model, tmp_path / "model")
    if model.position_embedding == "learned":  # then these mean nothing
        rotary = ("rotary_base", "rotary_fraction", "rotary_scaling_factor")
        found = found.model_copy(update={key: getattr(model, key) for key in rotary})
    assert found == model


@pytest.mark.parametrize("name", presets.names("model"))
def test_every_preset_has_a_family(name: str, tmp_path: Path) -> None:
    model = load_model(name).model_copy(update={"sources": {}})
    found = read_back(model, tmp_path / "model")
    if model.position_embedding == "learned":
        found = found.model_copy(update={"rotary_base": model.rotary_base})
    assert found == model


def test_what_no_family_has_is_told_at_once() -> None:
    found = refused(num_kv_heads=2, activation="swiglu", parallel_residual=True)
    assert found.keys() == {"model.num_kv_heads", "model.activation", "model.parallel_residual"}
    assert found["model.num_kv_heads"].constraint == "must be 4 in gpt2, the nearest Hugging Face family"
    assert found["model.activation"].value == "swiglu"


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"linear_bias": False}, {"linear_bias", "qkv_bias"}),
        ({"normalization": "rmsnorm"}, {"normalization"}),
        ({"head_dim": 8}, {"head_dim"}),
        (NEOX | {"activation": "swiglu"}, {"activation"}),
        (LLAMA | {"rotary_fraction": 0.5}, {"rotary_fraction"}),
        (LLAMA | {"activation": "gelu"}, {"activation"}),
        (LLAMA | {"parallel_residual": True}, {"parallel_residual"}),
        (LLAMA | {"hidden_size": 30, "head_dim": 8, "linear_bias": True}, {"num_heads"}),
    ],
)
def test_refused(fields: dict[str, Any], paths: set[str]) -> None:
    assert refused(**fields).keys() == {f"model.{path}" for path in paths}


def test_tokens_and_type() -> None:
    config = config_of(ModelSpec(**SIZES), "bfloat16", 7)
    assert (config["torch_dtype"], config["bos_token_id"], config["eos_token_id"]) == ("bfloat16", None, 7)


def test_mistral_has_no_window() -> None:
    """transformers would take one of 4096 tokens where the file says nothing."""
    model = ModelSpec(**LLAMA | {"hidden_size": 30, "head_dim": 8})
    config = config_of(model)
    assert (config["model_type"], config["sliding_window"]) == ("mistral", None)
