"""Which tensors of transformers hold which of our parameters.

All these families rotate halves of a head (not pairs), like megatron-core, so heads need no conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import family_of
from frontrunner.parallelism.runtime.huggingface.changes import (
    SAME,
    TRANSPOSED,
    Change,
    padded,
    queries_first,
    stacked,
    three,
)
from frontrunner.parallelism.runtime.huggingface.names import NAMES, Names

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


def entries(model: ModelSpec) -> list[Entry]:
    """All parameters of a model. Raises SpecError if no family can express it."""
    family = family_of(model)
    names = NAMES[family]
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
    sparse = model.experts.sparse_layers(model.num_layers) if model.experts else [False] * model.num_layers
    for number, has_experts in enumerate(sparse):
        within = names.within_layer
        if has_experts:
            within = {ours: theirs for ours, theirs in within.items() if not ours.startswith("mlp.")}
            within |= names.sparse
        for ours, theirs in within.items():
            modules = [f"{names.layers}.{number}.{module}" for module in theirs.split()]
            found += _module(model, family, f"decoder.layers.{number}.{ours}", modules)
        if has_experts:
            found += _experts(model, number, names)
    found += _module(model, family, "decoder.final_layernorm", [names.final_norm])
    if not model.tie_embeddings:
        found.append(Entry("output_layer.weight", (rows, hidden), (f"{names.output}.weight",), vocabulary))
    return found


def _module(model: ModelSpec, family: str, name: str, theirs: list[str]) -> Iterator[Entry]:
    """Weight and bias of a norm or a linear layer."""
    kind, change, bias = name.rpartition(".")[2], SAME, model.linear_bias
    shape = _shape(model, name)
    match kind:
        case "linear_qkv":
            change, bias = _qkv(model, family), model.qkv_bias
        case "linear_fc1" if model.activation == "swiglu":
            change = stacked(2)
        case "router" | "shared_gate" | "q_layernorm" | "k_layernorm":
            bias = False
        case _ if len(shape) == 1:
            bias = model.normalization == "layernorm"
    weight = change.then(TRANSPOSED) if family == "gpt2" and len(shape) == 2 else change
    yield Entry(f"{name}.weight", shape, tuple(f"{module}.weight" for module in theirs), weight)
    if bias:
        yield Entry(f"{name}.bias", shape[:1], tuple(f"{module}.bias" for module in theirs), change)


def _shape(model: ModelSpec, name: str) -> tuple[int, ...]:
    """Of a module's weight."""
    hidden, heads = model.hidden_size, model.num_heads * model.head_dim
    experts: Any = model.experts
    width = model.ffn_hidden_size
    if ".shared_experts." in name:
        width = experts.shared_experts * experts.ffn_hidden_size
    per_head = model.head_dim if model.qk_norm == "head" else None
    shapes: dict[str, tuple[int, ...]] = {
        "linear_qkv": (heads + 2 * model.num_kv_heads * model.head_dim, hidden),
        "linear_proj": (hidden, heads),
        "linear_fc1": ((2 if model.activation == "swiglu" else 1) * width, hidden),
        "linear_fc2": (hidden, width),
        "q_layernorm": (per_head or heads,),
        "k_layernorm": (per_head or model.num_kv_heads * model.head_dim,),
        "router": (experts.num_experts if experts else 0, hidden),
        "shared_gate": (1, hidden),
    }
    return shapes.get(name.rpartition(".")[2], (hidden,))


def _experts(model: ModelSpec, number: int, names: Names) -> Iterator[Entry]:
    """The matrices of a layer's experts: below one another here, a tensor for each there."""
    assert model.experts is not None
    count, width = model.experts.num_experts, model.experts.ffn_hidden_size
    gate, up, down = (f"{names.layers}.{number}.{name}.weight" for name in names.experts)
    first = tuple(name.format(expert) for expert in range(count) for name in (gate, up))
    second = tuple(down.format(expert) for expert in range(count))
    ours = f"decoder.layers.{number}.mlp.experts"
    shape = (2 * count * width, model.hidden_size)
    yield Entry(f"{ours}.linear_fc1.weight", shape, first, stacked(2 * count))
    shape = (count * model.hidden_size, width)
    yield Entry(f"{ours}.linear_fc2.weight", shape, second, stacked(count))


def _qkv(model: ModelSpec, family: str) -> Change:
    if family == "gpt2":
        return queries_first(model.num_heads, model.head_dim)
    return SAME if family == "gpt_neox" else three(model.num_heads, model.num_kv_heads, model.head_dim)
