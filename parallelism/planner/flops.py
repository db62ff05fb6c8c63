"""FLOPs of a training step. Model FLOPs exclude recomputation, hardware FLOPs include it.

A multiply-add counts as two FLOPs. Attention counts the full sequence, not its causal half, like Megatron's
formula (Narayanan et al. 2021, appendix) and torch's FLOP counter. Of a layer's experts only those count that
a token uses: FLOPs are of active parameters.
"""

from __future__ import annotations

from frontrunner.configs.schema import ModelSpec, Recompute
from frontrunner.parallelism.planner.parameters import sparse_before


def attention_core_flops_per_token(model: ModelSpec, seq_len: int) -> int:
    """Forward FLOPs of QK^T and the product with V, for one layer and one token."""
    return 2 * 2 * seq_len * model.num_heads * model.head_dim


def layer_flops_per_token(model: ModelSpec, seq_len: int, sparse: bool = False) -> int:
    """Forward FLOPs of one transformer layer and one token; ``sparse``: of a layer with experts."""
    hidden, heads = model.hidden_size, model.num_heads * model.head_dim
    projections = 2 * hidden * (2 * heads + 2 * model.num_kv_heads * model.head_dim)
    matrices = 3 if model.activation == "swiglu" else 2
    width, routing = model.ffn_hidden_size, 0
    if sparse and (experts := model.experts):
        width = (experts.experts_per_token + experts.shared_experts) * experts.ffn_hidden_size
        routing = 2 * hidden * (experts.num_experts + experts.shared_gate)
    mlp = 2 * matrices * hidden * width
    return projections + mlp + routing + attention_core_flops_per_token(model, seq_len)


def all_layers_flops_per_token(model: ModelSpec, seq_len: int) -> int:
    """Forward FLOPs of all transformer layers and one token."""
    sparse = sparse_before(model, model.num_layers)
    found = (model.num_layers - sparse) * layer_flops_per_token(model, seq_len)
    return found + sparse * layer_flops_per_token(model, seq_len, sparse=True)


def causal_model_flops_per_token(model: ModelSpec, seq_len: int) -> int:
    """Model FLOPs if half of attention's products are counted, those that a causal mask keeps.

    Megatron-LM and what builds on it count so since 2025 (megatron/training/training.py).
    """
    masked = 3 * model.num_layers * attention_core_flops_per_token(model, seq_len) // 2
    return model_flops_per_token(model, seq_len) - masked


def plain_gpt_flops_per_token(model: ModelSpec, seq_len: int, passes: int) -> float:
    """As trainers count that take every model for a GPT: an MLP of 4 x hidden, no gate, a key for each query.

    ``passes`` is 3, or 4 with recomputation, which they also count for the output (Narayanan et al. 2021,
    equation 3; GPT-NeoX, megatron/logging.py; Megatron-DeepSpeed, megatron/utils.py).
    """
    hidden, layers = model.hidden_size, model.num_layers
    share = 1 + seq_len / (6 * hidden) + model.padded_vocab_size / (16 * layers * hidden)
    return 24 * passes * layers * hidden**2 * share


def model_flops_per_token(model: ModelSpec, seq_len: int) -> int:
    """Forward and backward FLOPs of one token; the backward costs twice the forward."""
    output = 2 * model.hidden_size * model.padded_vocab_size
    return 3 * (all_layers_flops_per_token(model, seq_len) + output)


def hardware_flops_per_token(model: ModelSpec, seq_len: int, recompute: Recompute) -> int:
    """Model FLOPs plus the FLOPs of the recomputed forward."""
    again = {
        "none": 0,
        "selective": model.num_layers * attention_core_flops_per_token(model, seq_len),
        "full": all_layers_flops_per_token(model, seq_len),
    }[recompute]
    return model_flops_per_token(model, seq_len) + again
