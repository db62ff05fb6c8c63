"""The model in GPT-NeoX's configuration, and what it cannot express.

Checked at ea7aefd: ``ParallelMLP``, ``ParallelSelfAttention`` and ``ParallelTransformerLayer`` in
megatron/model/transformer.py, ``get_norm``, ``get_activation``, and the defaults of
megatron/neox_arguments/neox_args.py.
"""

from __future__ import annotations

from typing import Any

from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.launcher.exporters.combinations import (
    NORMS_BEFORE,
    WHOLE_BASE,
    Combination,
    positions,
    rotary_scaling,
)


def _gated(model: ModelSpec) -> bool:
    return model.activation == "swiglu"


def _biased(_: ModelSpec) -> dict[str, object]:
    return {"linear_bias": True, "qkv_bias": True}


COMBINATIONS = (
    Combination(
        "head_dim",
        lambda m: m.head_dim * m.num_heads != m.hidden_size,
        "its heads are hidden_size / num_heads wide, here {m.hidden_size} / {m.num_heads}",
        lambda m: {} if m.hidden_size % m.num_heads else {"head_dim": m.hidden_size // m.num_heads},
    ),
    Combination(
        "qkv_bias",
        lambda m: m.qkv_bias != m.linear_bias,
        "it has biases in query, key, value and output projection alike (use_bias_in_attn_linear), "
        "but here linear_bias is false",
        lambda m: {"qkv_bias": m.linear_bias},
    ),
    Combination(
        "linear_bias",
        lambda m: not m.linear_bias and not _gated(m),
        "its MLP adds a bias to what {m.activation} reads, and stops where there is none",
        _biased,
    ),
    Combination(
        "parallel_residual",
        lambda m: m.parallel_residual and not m.linear_bias,
        "without biases in the MLP its parallel layers leave out what attention computed",
        _biased,
    ),
    Combination(
        "hidden_dropout",
        lambda m: m.hidden_dropout > 0 and not m.linear_bias,
        "without biases in the MLP it has no dropout after it",
        lambda m: {"hidden_dropout": 0.0},
    ),
    Combination(
        "ffn_hidden_size",
        lambda m: not _gated(m) and m.ffn_hidden_size % 2 == 1,
        "it makes the MLP's first layer a multiple of 2 wide, and its second layer no wider",
        lambda m: {"ffn_hidden_size": m.ffn_hidden_size + 1},
    ),
    Combination(
        "rotary_scaling_factor",
        lambda m: rotary_scaling(m) is not None,
        "it has no frequency scaling, so positions would turn as without it",
        lambda m: {"rotary_scaling_factor": None},
    ),
    Combination(
        "qk_norm",
        # use_qk_layernorm: get_norm([heads of the rank, head_dim]), one module for both.
        lambda m: m.qk_norm != "none",
        "its queries and keys share one norm, over the heads of each tensor rank",
        lambda m: {"qk_norm": "none"},
    ),
    NORMS_BEFORE,
    WHOLE_BASE,
)


def model_section(spec: RunSpec) -> dict[str, Any]:
    """The model's keys; right for models that no row of COMBINATIONS describes."""
    model = spec.model
    rms = model.normalization == "rmsnorm"
    found: dict[str, Any] = {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_kv_heads": model.num_kv_heads,
        # GPT-NeoX takes two thirds of this for a gated MLP, half of it for the gate.
        "intermediate_size": model.ffn_hidden_size * (3 if _gated(model) else 1),
        # Its default today. Widths are rounded up to multiples of it, of twice it before the activation.
        "mlp_multiple_of": 1,
        "seq_length": spec.training.seq_len,
        "max_position_embeddings": positions(model, spec.training.seq_len),
        # GPT-NeoX pads to a multiple of this times the tensor ranks.
        "make_vocab_size_divisible_by": model.padded_vocab_size // spec.layout.tensor,
        "norm": model.normalization,
        "rms_norm_epsilon" if rms else "layernorm_epsilon": model.norm_epsilon,
        "pos_emb": model.position_embedding,
        "no_weight_tying": not model.tie_embeddings,
        "gpt_j_residual": model.parallel_residual,
        # One norm for attention and one for the MLP also there.
        "gpt_j_tied": False,
        "activation": "swiglu" if _gated(model) else "gelu",
        # The fused kernel is the tanh approximation.
        "bias_gelu_fusion": model.activation == "gelu_tanh",
        "use_bias_in_attn_linear": model.linear_bias,
        "use_bias_in_mlp": model.linear_bias,
        "init_method": "normal",
        "output_layer_init_method": "scaled_normal",
        "init_method_std": model.init_std,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
        # Flash attention has no float32.
        "attention_config": [
            [["global" if spec.training.precision == "float32" else "flash"], model.num_layers]
        ],
    }
    if model.position_embedding == "rotary":
        found |= {"rotary_pct": model.rotary_fraction, "rotary_emb_base": int(model.rotary_base)}
    return found


def model_notes(spec: RunSpec) -> list[str]:
    """What the built model does otherwise while its function is the same."""
    model, tensor = spec.model, spec.layout.tensor
    if not model.parallel_residual or tensor == 1:
        return []
    return [
        f"parallel_residual with tensor {tensor}: each tensor rank adds its own copy of the biases of "
        f"attention's and the MLP's output, so these two learn {tensor} times as fast as ours"
    ]
