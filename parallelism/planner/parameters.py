"""Counts a model's parameters, in total and on one rank, by what is gathered together.

Exact for what ``runtime/gpt`` builds. Comments give megatron-core's names.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner.traffic import Units

_Count = TypeVar("_Count", int, npt.NDArray[np.float64])


def layer_parameters(model: ModelSpec, tensor: int = 1, sparse: bool = False) -> int:
    """Parameters of one transformer layer on one of ``tensor`` ranks.

    ``sparse``: of a layer with experts, everything but the experts, which are a shard unit of their own.
    """
    hidden, heads = model.hidden_size, model.num_heads * model.head_dim
    qkv = heads + 2 * model.num_kv_heads * model.head_dim
    ffn, routing = model.ffn_hidden_size, 0
    if sparse and (experts := model.experts):
        ffn = experts.shared_experts * experts.ffn_hidden_size
        routing = hidden * (experts.num_experts + experts.shared_gate)  # whole on each tensor rank
    widths = ffn * (2 if model.activation == "swiglu" else 1)
    matrices = hidden * (qkv + heads + widths + ffn)
    # linear_qkv and linear_fc1 are cut by rows, with their biases; biases of linear_proj, linear_fc2 are not.
    cut_biases = (qkv if model.qkv_bias else 0) + (widths if model.linear_bias else 0)
    whole_biases = 2 * hidden if model.linear_bias else 0
    cut = matrices + cut_biases + qk_norm_parameters(model, "full")
    whole = whole_biases + 2 * norm_parameters(model) + qk_norm_parameters(model, "head")
    return cut // tensor + whole + routing


def expert_parameters(model: ModelSpec, tensor: int = 1) -> int:
    """Parameters of one expert on one of ``tensor`` ranks; 0 for a dense model."""
    if model.experts is None:
        return 0
    matrices = 3 if model.activation == "swiglu" else 2
    return matrices * model.hidden_size * model.experts.ffn_hidden_size // tensor


def sparse_before(model: ModelSpec, layers: _Count) -> _Count:
    """How many of the first ``layers`` layers have experts."""
    if model.experts is None:
        return 0 * layers
    past = layers - model.experts.first_dense_layers
    return past * (past > 0) // model.experts.every


def qk_norm_parameters(model: ModelSpec, kind: str) -> int:
    """Of the norms of queries and keys, if they are of this kind: tensor ranks cut those of all heads."""
    if model.qk_norm != kind:
        return 0
    return (model.num_heads + model.num_kv_heads if kind == "full" else 2) * model.head_dim


def norm_parameters(model: ModelSpec) -> int:
    return model.hidden_size * (2 if model.normalization == "layernorm" else 1)


def stage_units(
    model: ModelSpec,
    tensor: int = 1,
    pipeline: int = 1,
    stage: int = 0,
    expert: int = 1,
    virtual_stages: int = 1,
) -> Units:
    """What a rank of a pipeline stage holds. ``virtual_stages`` matter where some layers have experts.

    Positions go with the first layer, the final norm with the last layer. The last stage has its own copy of
    a tied embedding.
    """
    words = model.padded_vocab_size * model.hidden_size // tensor
    learned = model.position_embedding == "learned"
    positions = model.max_position_embeddings * model.hidden_size if learned else 0
    first, last = stage == 0, stage == pipeline - 1
    length = model.num_layers // (pipeline * virtual_stages)
    starts = [(chunk * pipeline + stage) * length for chunk in range(virtual_stages)]
    sparse = sum(sparse_before(model, start + length) - sparse_before(model, start) for start in starts)
    dense = length * virtual_stages - sparse
    starts_sparse = sparse_before(model, starts[0] + 1) > sparse_before(model, starts[0])
    experts = expert_parameters(model, tensor) * (model.experts.num_experts if model.experts else 0) // expert
    return Units(
        layers=dense * layer_parameters(model, tensor)
        + sparse * layer_parameters(model, tensor, sparse=True)
        + (positions if first else 0)
        + (norm_parameters(model) if last else 0),
        first_layer=layer_parameters(model, tensor, starts_sparse) + (positions if first else 0),
        embedding=words if first else 0,
        output=words if last else 0,
        tied=model.tie_embeddings and pipeline == 1,
        experts=sparse * experts,
        first_experts=experts if starts_sparse else 0,
    )


def total_parameters(model: ModelSpec) -> int:
    """Parameters of the whole model, with vocabulary padding; a tied embedding counts once."""
    return int(stage_units(model).numel)


def active_parameters(model: ModelSpec) -> int:
    """Of these, the parameters that a token uses: of experts only the ones that are chosen for it."""
    experts = model.experts
    unused = experts.num_experts - experts.experts_per_token if experts else 0
    layers = sparse_before(model, model.num_layers)
    return total_parameters(model) - layers * unused * expert_parameters(model)
