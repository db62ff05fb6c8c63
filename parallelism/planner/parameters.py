"""Counts a model's parameters, in total and on one rank, by what is gathered together.

Exact for what ``runtime/gpt`` builds. Comments give megatron-core's names.
"""

from __future__ import annotations

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner.traffic import Units


def layer_parameters(model: ModelSpec, tensor: int = 1) -> int:
    """Parameters of one transformer layer on one of ``tensor`` ranks."""
    hidden, heads = model.hidden_size, model.num_heads * model.head_dim
    qkv = heads + 2 * model.num_kv_heads * model.head_dim
    widths = model.ffn_hidden_size * (2 if model.activation == "swiglu" else 1)
    matrices = hidden * (qkv + heads + widths + model.ffn_hidden_size)
    # linear_qkv and linear_fc1 are cut by rows, with their biases; biases of linear_proj, linear_fc2 are not.
    cut_biases = (qkv if model.qkv_bias else 0) + (widths if model.linear_bias else 0)
    whole_biases = 2 * hidden if model.linear_bias else 0
    cut = matrices + cut_biases + qk_norm_parameters(model, "full")
    whole = whole_biases + 2 * norm_parameters(model) + qk_norm_parameters(model, "head")
    return cut // tensor + whole


def qk_norm_parameters(model: ModelSpec, kind: str) -> int:
    """Of the norms of queries and keys, if they are of this kind: tensor ranks cut those of all heads."""
    if model.qk_norm != kind:
        return 0
    return (model.num_heads + model.num_kv_heads if kind == "full" else 2) * model.head_dim


def norm_parameters(model: ModelSpec) -> int:
    return model.hidden_size * (2 if model.normalization == "layernorm" else 1)


def stage_units(model: ModelSpec, tensor: int = 1, pipeline: int = 1, stage: int = 0) -> Units:
    """What a rank of a pipeline stage holds, interleaved or not.

    Positions go with the first layer, the final norm with the last layer. The last stage has its own copy of
    a tied embedding.
    """
    words = model.padded_vocab_size * model.hidden_size // tensor
    learned = model.position_embedding == "learned"
    positions = model.max_position_embeddings * model.hidden_size if learned else 0
    first, last = stage == 0, stage == pipeline - 1
    layer = layer_parameters(model, tensor)
    return Units(
        layers=model.num_layers // pipeline * layer
        + (positions if first else 0)
        + (norm_parameters(model) if last else 0),
        first_layer=layer + (positions if first else 0),
        embedding=words if first else 0,
        output=words if last else 0,
        tied=model.tie_embeddings and pipeline == 1,
    )


def total_parameters(model: ModelSpec) -> int:
    """Parameters of the whole model, with vocabulary padding; a tied embedding counts once."""
    return int(stage_units(model).numel)
