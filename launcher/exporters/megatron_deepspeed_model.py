"""The model in Megatron-DeepSpeed's arguments, and what they cannot express.

Checked at 4efb479: ``validate_args`` (megatron/arguments.py), ``ParallelMLP`` and ``ParallelAttention``
(megatron/model/transformer.py), ``apply_rotary_pos_emb`` (megatron/model/rotary_pos_embedding.py).
"""

from __future__ import annotations

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import NO_QK_NORM, NORMS_BEFORE, Combination
from frontrunner.launcher.exporters.megatron_model import Arguments

COMBINATIONS = (
    Combination(
        "position_embedding",
        # RotaryEmbedding returns [cos, sin] since 676a482c. The pipeline calls .to() of that list; the other
        # path takes cos for the angles of queries and keys.
        lambda m: m.position_embedding == "rotary",
        "its pipeline stops at rotary embeddings, and without a pipeline it turns by the cosine of each "
        "angle instead of the angle",
        lambda m: {"position_embedding": "learned"},
    ),
    Combination(
        "qkv_bias",
        lambda m: m.qkv_bias != m.linear_bias,
        "it has biases in all linear layers or in none, but here linear_bias is false",
        lambda m: {"qkv_bias": m.linear_bias},
    ),
    Combination(
        "parallel_residual",
        lambda m: m.parallel_residual,
        "its MLP always runs after attention, and reads what attention added",
        lambda m: {"parallel_residual": False},
    ),
    NO_QK_NORM,
    NORMS_BEFORE,
)


def model_arguments(spec: RunSpec) -> Arguments:
    """The model's arguments in order; right for models that no row of COMBINATIONS describes."""
    model = spec.model
    found: Arguments = {
        "--num-layers": model.num_layers,
        "--hidden-size": model.hidden_size,
        "--ffn-hidden-size": model.ffn_hidden_size,
        "--num-attention-heads": model.num_heads,
        "--num-key-value-heads": model.num_kv_heads,
        "--kv-channels": model.head_dim,
        "--max-position-embeddings": model.max_position_embeddings,
        # It pads to a multiple of this times the tensor ranks: here the model's rows.
        "--make-vocab-size-divisible-by": model.padded_vocab_size // spec.layout.tensor,
        # NullTokenizer adds the end-of-document token.
        "--vocab-size": max(1, model.vocab_size - 1),
        "--normalization": model.normalization,
        "--layernorm-epsilon": model.norm_epsilon,
        "--init-method-std": model.init_std,
        "--attention-dropout": model.attention_dropout,
        "--hidden-dropout": model.hidden_dropout,
        "--no-query-key-layer-scaling": True,
    }
    flags = {
        "--swiglu": model.activation == "swiglu",
        # The kernel that adds the bias computes the tanh approximation, and so does OpenAI's without one.
        "--no-bias-gelu-fusion": model.activation == "gelu",
        "--openai-gelu": model.activation == "gelu_tanh" and not model.linear_bias,
        "--untie-embeddings-and-output-weights": not model.tie_embeddings,
        "--disable-bias-linear": not model.linear_bias,
    }
    return found | {name: True for name, given in flags.items() if given}
