"""Which tensors of transformers hold which of our parameters.

All these families rotate halves of a head (not pairs), like megatron-core, so heads need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import family_of
from frontrunner.parallelism.runtime.huggingface.changes import (
    SAME,
    STACKED,
    TRANSPOSED,
    Change,
    padded,
    queries_first,
    three,
)

Get: TypeAlias = Callable[[str], Tensor]


@dataclass(frozen=True)
class Entry:
    """One parameter: its global name and full shape, the tensors that hold it, and the conversion."""

    name: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    change: Change

    def their_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes of the tensors that hold the parameter."""
        parts = self.change.split(torch.empty(self.shape, device="meta"))
        yield from zip(self.theirs, (tuple(part.shape) for part in parts), strict=True)


def to_huggingface(model: ModelSpec, get: Get) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of transformers; some are views of what ``get`` returned.

    ``get`` returns a parameter of full shape by its global name. It is called once per parameter, when its
    turn comes. Raises SpecError if no family can express the model.
    """
    for entry in entries(model):
        tensor = get(entry.name)
        assert tensor.shape == entry.shape, f"{entry.name}: {tuple(tensor.shape)} is not {entry.shape}"
        yield from zip(entry.theirs, entry.change.split(tensor), strict=True)


def from_huggingface(model: ModelSpec, get: Get) -> Iterator[tuple[str, Tensor]]:
    """Global names and full parameters; ``get`` returns a tensor of transformers by its name.

    Padding rows of the vocabulary are zero. Raises SpecError if no family can express the model.
    """
    for entry in entries(model):
        tensor = entry.change.join([get(name) for name in entry.theirs])
        assert tensor.shape == entry.shape, f"{entry.name}: {tuple(tensor.shape)} is not {entry.shape}"
        yield entry.name, tensor


# Keyed by module of a megatron-core layer; two or three names if transformers splits the module.
_GPT2 = {
    "input_layernorm": "ln_1",
    "self_attention.linear_qkv": "attn.c_attn",
    "self_attention.linear_proj": "attn.c_proj",
    "pre_mlp_layernorm": "ln_2",
    "mlp.linear_fc1": "mlp.c_fc",
    "mlp.linear_fc2": "mlp.c_proj",
}
_GPT_NEOX = {
    "input_layernorm": "input_layernorm",
    "self_attention.linear_qkv": "attention.query_key_value",
    "self_attention.linear_proj": "attention.dense",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "mlp.linear_fc1": "mlp.dense_h_to_4h",
    "mlp.linear_fc2": "mlp.dense_4h_to_h",
}
_LLAMA = {
    "input_layernorm": "input_layernorm",
    "self_attention.linear_qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "self_attention.linear_proj": "self_attn.o_proj",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "mlp.linear_fc1": "mlp.gate_proj mlp.up_proj",
    "mlp.linear_fc2": "mlp.down_proj",
}
_QK_NORMS = {
    "self_attention.q_layernorm": "self_attn.q_norm",
    "self_attention.k_layernorm": "self_attn.k_norm",
}
_OLMO2 = {
    "self_attention.linear_qkv": _LLAMA["self_attention.linear_qkv"],
    **_QK_NORMS,
    "self_attention.linear_proj": _LLAMA["self_attention.linear_proj"],
    "post_self_attn_layernorm": "post_attention_layernorm",
    "mlp.linear_fc1": _LLAMA["mlp.linear_fc1"],
    "mlp.linear_fc2": _LLAMA["mlp.linear_fc2"],
    "post_mlp_layernorm": "post_feedforward_layernorm",
}


@dataclass(frozen=True)
class _Names:
    words: str
    layers: str
    within_layer: Mapping[str, str]
    final_norm: str
    output: str
    positions: str = ""


# transformers 5 calls gpt_neox's output lm_head and reads either name; version 4 only knows embed_out.
_NAMES = {
    "gpt2": _Names(
        "transformer.wte", "transformer.h", _GPT2, "transformer.ln_f", "lm_head", "transformer.wpe"
    ),
    "gpt_neox": _Names(
        "gpt_neox.embed_in", "gpt_neox.layers", _GPT_NEOX, "gpt_neox.final_layer_norm", "embed_out"
    ),
}
_NAMES |= {
    name: _Names("model.embed_tokens", "model.layers", within_layer, "model.norm", "lm_head")
    for name, within_layer in (
        *dict.fromkeys(("llama", "mistral", "qwen2"), _LLAMA).items(),
        ("qwen3", _LLAMA | _QK_NORMS),
        ("olmo2", _OLMO2),
    )
}


def entries(model: ModelSpec) -> list[Entry]:
    """All parameters of a model. Raises SpecError if no family can express it."""
    family = family_of(model)
    names = _NAMES[family]
    hidden, rows = model.hidden_size, model.padded_vocab_size
    vocabulary = padded(model.vocab_size, rows - model.vocab_size)
    found = [
        Entry("embedding.word_embeddings.weight", (rows, hidden), (f"{names.words}.weight",), vocabulary)
    ]
    if model.position_embedding == "learned":
        shape = (model.max_position_embeddings, hidden)
        found.append(
            Entry("embedding.position_embeddings.weight", shape, (f"{names.positions}.weight",), SAME)
        )
    for number in range(model.num_layers):
        for ours, theirs in names.within_layer.items():
            modules = [f"{names.layers}.{number}.{module}" for module in theirs.split()]
            found += _module(model, family, f"decoder.layers.{number}.{ours}", modules)
    found += _module(model, family, "decoder.final_layernorm", [names.final_norm])
    if not model.tie_embeddings:
        found.append(Entry("output_layer.weight", (rows, hidden), (f"{names.output}.weight",), vocabulary))
    return found


def _module(model: ModelSpec, family: str, name: str, theirs: list[str]) -> Iterator[Entry]:
    """Weight and bias of a norm or a linear layer."""
    hidden, width = model.hidden_size, model.num_heads * model.head_dim
    kind, change, bias = name.rpartition(".")[2], SAME, model.linear_bias
    match kind:
        case "linear_qkv":
            shape: tuple[int, ...] = (width + 2 * model.num_kv_heads * model.head_dim, hidden)
            change, bias = _qkv(model, family), model.qkv_bias
        case "linear_proj":
            shape = (hidden, width)
        case "linear_fc1" if model.activation == "swiglu":
            shape, change = (2 * model.ffn_hidden_size, hidden), STACKED
        case "linear_fc1":
            shape = (model.ffn_hidden_size, hidden)
        case "linear_fc2":
            shape = (hidden, model.ffn_hidden_size)
        case "q_layernorm" | "k_layernorm":
            heads = model.num_heads if kind == "q_layernorm" else model.num_kv_heads
            shape, bias = (heads * model.head_dim if model.qk_norm == "full" else model.head_dim,), False
        case _:
            shape, bias = (hidden,), model.normalization == "layernorm"
    weight = change.then(TRANSPOSED) if family == "gpt2" and len(shape) == 2 else change
    yield Entry(f"{name}.weight", shape, tuple(f"{module}.weight" for module in theirs), weight)
    if bias:
        yield Entry(f"{name}.bias", shape[:1], tuple(f"{module}.bias" for module in theirs), change)


def _qkv(model: ModelSpec, family: str) -> Change:
    if family == "gpt2":
        return queries_first(model.num_heads, model.head_dim)
    return SAME if family == "gpt_neox" else three(model.num_heads, model.num_kv_heads, model.head_dim)
