"""Writes a model as a Hugging Face ``config.json``: the inverse of :mod:`frontrunner.configs.huggingface`.

The same table defines reading and writing of a family. A family can express a model exactly if the written
file reads back as that model. Only keys that transformers 4 and 5 both read are written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.huggingface import convert
from frontrunner.configs.huggingface_families import (
    DENSE_LAYERS,
    FAMILIES,
    LLAMA_3_SCALING,
    OWN,
    OWN_KEY,
    OWN_OF_EXPERTS,
    SHARED_WIDTH,
    SPARSE_STEP,
    Family,
)
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.yaml_tree import Source, read_text

_ROTARY = {"rotary_base", "rotary_fraction", "rotary_scaling_factor"}


def family_of(model: ModelSpec) -> str:
    """The ``model_type`` that expresses a model; SpecError with each mismatch of the nearest one."""
    wrong = {name: _differences(model, name) for name in _candidates(model)}
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    if wrong[nearest]:
        raise SpecError(wrong[nearest])
    return nearest


def config_of(model: ModelSpec, dtype: str = "float32", end_token_id: int | None = None) -> dict[str, Any]:
    """The keys of ``config.json``; SpecError if no family can express the model.

    ``dtype`` is torch's name for the type of the weights. ``end_token_id`` ends a text. None means unknown,
    and is written so that transformers does not use its defaults for the family.
    """
    name = family_of(model)
    # Some families' default padding is a token like others here, and would not be trained there.
    tokens = {"bos_token_id": None, "eos_token_id": end_token_id, "pad_token_id": None}
    return _keys(model, name, FAMILIES[name]) | tokens | {"torch_dtype": dtype}


def _candidates(model: ModelSpec) -> tuple[str, ...]:
    """The families with the model's position encoding and norms, most common first."""
    if model.position_embedding == "learned" and model.experts is None:
        return ("gpt2",)
    if model.experts is not None:
        return ("mixtral", "qwen3_moe", "olmoe", "qwen2_moe")
    rms = ("llama", "qwen2", "mistral", "qwen3", "olmo2")
    return ("gpt_neox",) if model.normalization == "layernorm" else rms


def _keys(model: ModelSpec, name: str, family: Family) -> dict[str, Any]:
    config: dict[str, Any] = {"model_type": name, "architectures": [family.architecture]}
    config |= {theirs: getattr(model, ours) for ours, theirs in family.keys.items()}
    activations = (theirs for theirs, ours in family.activations.items() if ours == model.activation)
    config[family.keys["activation"]] = next(activations, model.activation)
    for key, other in family.equal.items():
        config |= {key: config[other]} if other in config else {other: config[key]}
    if model.experts is not None:
        config |= {theirs: getattr(model.experts, ours) for ours, theirs in family.experts.items()}
        if family.dense_width:
            config |= {family.dense_width: model.ffn_hidden_size, SPARSE_STEP: model.experts.every}
            config[DENSE_LAYERS] = [*range(model.experts.first_dense_layers)]
        if SHARED_WIDTH in family.defaults:
            config[SHARED_WIDTH] = model.experts.shared_experts * model.experts.ffn_hidden_size
    if "sliding_window" in family.defaults:
        config["sliding_window"] = None
    if model.position_embedding == "rotary" and model.rotary_scaling_factor is not None:
        scaling = {key: float(value) for key, value in LLAMA_3_SCALING.items()}
        scaling["original_max_position_embeddings"] = LLAMA_3_SCALING["original_max_position_embeddings"]
        config["rope_scaling"] = {"rope_type": "llama3", "factor": model.rotary_scaling_factor} | scaling
    own = _unusual(model, [key for key in OWN if key not in family.keys])
    if model.experts is not None:
        given = model.experts.model_fields_set
        own |= {key: getattr(model.experts, key) for key in OWN_OF_EXPERTS if key in given}
    return config | ({OWN_KEY: own} if own else {})


def _unusual(model: ModelSpec, keys: list[str]) -> dict[str, Any]:
    """The keys whose value differs from the default for the model's sizes."""
    sizes = ("num_layers", "hidden_size", "num_heads", "vocab_size")
    usual = ModelSpec(**{key: getattr(model, key) for key in sizes})
    return {key: getattr(model, key) for key in keys if getattr(model, key) != getattr(usual, key)}


def _differences(model: ModelSpec, name: str) -> list[Violation]:
    """The fields that a family would change in a model."""
    family, problems = FAMILIES[name], list[Violation]()
    text = json.dumps(_keys(model, name, family))
    tree = read_text(text, Source("config.json", Path()), problems)
    assert tree is not None
    fields = convert(tree, 1, problems).plain()
    if fields["activation"] is None:
        fields["activation"] = next(iter(family.activations.values()))
    read = ModelSpec.model_validate(fields)
    meaningless = {"name", "sources", "experts"} | (
        _ROTARY if model.position_embedding == "learned" else set()
    )
    if model.experts is not None and model.experts.num_sparse(model.num_layers) == model.num_layers:
        meaningless.add("ffn_hidden_size")
    found = []
    found += _expert_differences(model, read, name)
    for key in ModelSpec.model_fields:
        value, other = getattr(model, key), getattr(read, key)
        if key not in meaningless and value != other:
            what = f"must be {json.dumps(other)} in {name}, the nearest Hugging Face family"
            found.append(Violation(f"model.{key}", value, what, "export a model with that value"))
    if family.whole_heads and model.hidden_size % model.num_heads:
        what = f"must divide hidden_size {model.hidden_size} in {name}, the nearest Hugging Face family"
        found.append(
            Violation("model.num_heads", model.num_heads, what, "export a model that satisfies this")
        )
    return found


def _expert_differences(model: ModelSpec, read: ModelSpec, name: str) -> list[Violation]:
    if model.experts is None or read.experts is None:
        return []
    found = []
    for key in type(model.experts).model_fields:
        value, other = getattr(model.experts, key), getattr(read.experts, key)
        if value != other:
            what = f"must be {json.dumps(other)} in {name}, the nearest Hugging Face family"
            found.append(Violation(f"model.experts.{key}", value, what, "export a model with that value"))
    return found
