"""How the families of transformers are read and written: one table for both directions.

Defaults are those of transformers (5.0, ``models/*/configuration_*.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from frontrunner.configs.yaml_tree import Scalar

_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")
ACTIVATIONS = {"gelu": "gelu"} | dict.fromkeys(_TANH, "gelu_tanh")
GATED = {"silu": "swiglu", "swish": "swiglu"}
#: Built into megatron-core's rotary scaling (Llama 3.1; ``rotary_pos_embedding.py``).
LLAMA_3_SCALING = {"low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192}
ROPE_KEYS = {*LLAMA_3_SCALING, "factor", "rope_type", "type", "rope_theta", "partial_rotary_factor"}
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
#: Two names of one key: which of them transformers writes depends on its version.
COUNTS = ("num_experts", "num_local_experts")
#: Families that need more than what is read here, and what.
WITHOUT = {
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "kimi_k2"), "latent attention (MLA) is not supported"),
    "gpt_oss": "attention sinks and experts with biases are not supported",
    "llama4_text": "chunked attention is not supported",
    "granitemoe": "scaled residuals and embeddings are not supported",
    "dbrx": "clipped queries and layer norms without weights are not supported",
}
#: Files that we write keep fields without a key in their family under this key. transformers ignores it: none
#: of these fields changes what a trained model computes.
OWN_KEY = "frontrunner"
OWN = ("padded_vocab_size", "hidden_dropout")
#: And these of a mixture of experts.
OWN_OF_EXPERTS = ("z_loss",)


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` is read and written.

    ``architecture``: transformers' class. ``keys``: our field to their key. ``defaults``: transformers'
    values for missing keys. ``implied``: fields fixed by the family. ``only``: keys with a single supported
    value. ``equal``: pairs of keys that must agree, because both are one field here. ``whole_heads``:
    transformers requires num_heads to divide hidden_size.
    """

    architecture: str
    keys: Mapping[str, str]
    activations: Mapping[str, str]
    defaults: Mapping[str, Scalar]
    implied: Mapping[str, Scalar]
    only: Mapping[str, Scalar] = field(default_factory=dict)
    equal: Mapping[str, str] = field(default_factory=dict)
    whole_heads: bool = False
    experts: Mapping[str, str] = field(default_factory=dict)
    """Fields of a mixture of experts to their keys; empty: the family is dense."""
    expert_fields: Mapping[str, Scalar] = field(default_factory=dict)
    """Fields of its experts that the family fixes."""
    dense_width: str | None = None
    """Their key for the width of dense layers; None: there are none."""


_SHARED = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "ffn_hidden_size": "intermediate_size",
    "vocab_size": "vocab_size",
    "max_position_embeddings": "max_position_embeddings",
    "tie_embeddings": "tie_word_embeddings",
    "attention_dropout": "attention_dropout",
    "init_std": "initializer_range",
    "activation": "hidden_act",
}
_LLAMA_KEYS = _SHARED | {
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "norm_epsilon": "rms_norm_eps",
    "rotary_base": "rope_theta",
}
_LLAMA_DEFAULTS: dict[str, Scalar] = {
    "hidden_act": "silu",
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
#: The window of Qwen's families only counts where its switch is on.
_SWITCHED_WINDOW: dict[str, Scalar] = {"use_sliding_window": False, "sliding_window": 4096}
_LLAMA_IMPLIED: dict[str, Scalar] = {
    "position_embedding": "rotary",
    "normalization": "rmsnorm",
    "linear_bias": False,
}

#: Which layers of Qwen's mixtures have experts: all, or what these say.
DENSE_LAYERS, SPARSE_STEP, SHARED_WIDTH = (
    "mlp_only_layers",
    "decoder_sparse_step",
    "shared_expert_intermediate_size",
)
_QWEN_EXPERTS: dict[str, Scalar] = {
    SPARSE_STEP: 1,
    "norm_topk_prob": False,
    "router_aux_loss_coef": 0.001,
}


def _without_width(keys: Mapping[str, str]) -> dict[str, str]:
    """Keys of a family whose ``intermediate_size`` is not, or not always, the width of dense layers."""
    return {ours: theirs for ours, theirs in keys.items() if ours != "ffn_hidden_size"}


def _expert_keys(count: str, width: str) -> dict[str, str]:
    return {
        "num_experts": count,
        "experts_per_token": "num_experts_per_tok",
        "ffn_hidden_size": width,
        "aux_loss": "router_aux_loss_coef",
    }


FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel",
        keys={
            "num_layers": "n_layer",
            "hidden_size": "n_embd",
            "num_heads": "n_head",
            "ffn_hidden_size": "n_inner",
            "vocab_size": "vocab_size",
            "max_position_embeddings": "n_positions",
            "norm_epsilon": "layer_norm_epsilon",
            "activation": "activation_function",
            "tie_embeddings": "tie_word_embeddings",
            "attention_dropout": "attn_pdrop",
            "hidden_dropout": "resid_pdrop",
            "init_std": "initializer_range",
        },
        activations=ACTIVATIONS,
        defaults={
            "n_positions": 1024,
            "activation_function": "gelu_new",
            "attn_pdrop": 0.1,
            "resid_pdrop": 0.1,
            "embd_pdrop": 0.1,
        },
        implied={"position_embedding": "learned", "normalization": "layernorm", "linear_bias": True},
        only={
            "scale_attn_weights": True,
            "scale_attn_by_inverse_layer_idx": False,
            "add_cross_attention": False,
        },
        equal={"embd_pdrop": "resid_pdrop"},
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM",
        keys=_SHARED
        | {
            "norm_epsilon": "layer_norm_eps",
            "rotary_base": "rotary_emb_base",
            "rotary_fraction": "rotary_pct",
            "parallel_residual": "use_parallel_residual",
            "hidden_dropout": "hidden_dropout",
        },
        activations=ACTIVATIONS,
        defaults={
            "hidden_act": "gelu",
            "intermediate_size": 24576,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "use_parallel_residual": True,
        },
        implied={"position_embedding": "rotary", "normalization": "layernorm", "linear_bias": True},
        only={"attention_bias": True},
    ),
    "llama": Family(
        "LlamaForCausalLM",
        _LLAMA_KEYS | {"linear_bias": "attention_bias"},
        GATED,
        _LLAMA_DEFAULTS | {"attention_bias": False, "mlp_bias": False},
        _LLAMA_IMPLIED,
        equal={"attention_bias": "mlp_bias"},
        whole_heads=True,
    ),
    "mistral": Family(
        "MistralForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
        _LLAMA_IMPLIED,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 22016,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qkv_bias": True},
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 22016,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 32,
            "head_dim": 128,
            "attention_bias": False,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qk_norm": "head"},
        only={"attention_bias": False},
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        _LLAMA_KEYS,
        GATED,
        _LLAMA_DEFAULTS | {"rms_norm_eps": 1e-5, "attention_bias": False},
        _LLAMA_IMPLIED | {"qk_norm": "full", "norm_position": "after"},
        only={"attention_bias": False},
    ),
    "mixtral": Family(
        "MixtralForCausalLM",
        _without_width(_LLAMA_KEYS),
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 14336,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.001,
            "sliding_window": None,
        },
        _LLAMA_IMPLIED,
        only={"router_jitter_noise": 0.0},
        experts=_expert_keys("num_local_experts", "intermediate_size"),
        expert_fields={"normalize": True},
    ),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM",
        _without_width(_LLAMA_KEYS),
        GATED,
        _LLAMA_DEFAULTS
        | _QWEN_EXPERTS
        | {
            "intermediate_size": 5632,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 16,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts_per_tok": 4,
            "num_experts": 60,
            "qkv_bias": True,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qkv_bias": True},
        only={"qkv_bias": True},
        experts=_expert_keys("num_experts", "moe_intermediate_size") | {"normalize": "norm_topk_prob"},
        expert_fields={"shared_gate": True},
        dense_width="intermediate_size",
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM",
        _without_width(_LLAMA_KEYS),
        GATED,
        _LLAMA_DEFAULTS
        | _QWEN_EXPERTS
        | {
            "intermediate_size": 6144,
            "max_position_embeddings": 32768,
            "num_key_value_heads": 4,
            "moe_intermediate_size": 768,
            "num_experts_per_tok": 8,
            "num_experts": 128,
            "attention_bias": False,
        }
        | _SWITCHED_WINDOW,
        _LLAMA_IMPLIED | {"qk_norm": "head"},
        only={"attention_bias": False},
        experts=_expert_keys("num_experts", "moe_intermediate_size") | {"normalize": "norm_topk_prob"},
        dense_width="intermediate_size",
    ),
    "olmoe": Family(
        "OlmoeForCausalLM",
        _without_width(_LLAMA_KEYS),
        GATED,
        _LLAMA_DEFAULTS
        | {
            "intermediate_size": 2048,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "num_experts_per_tok": 8,
            "num_experts": 64,
            "norm_topk_prob": False,
            "router_aux_loss_coef": 0.01,
            "attention_bias": False,
        },
        _LLAMA_IMPLIED | {"qk_norm": "full"},
        only={"attention_bias": False, "clip_qkv": None},
        experts=_expert_keys("num_experts", "intermediate_size") | {"normalize": "norm_topk_prob"},
    ),
}
