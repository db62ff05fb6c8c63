"""What transformers calls the modules of a megatron-core model, by family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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
#: In place of the MLP, in layers that have experts.
_MIXTRAL_EXPERTS = {"mlp.router": "block_sparse_moe.gate"}
_QWEN_EXPERTS = {"mlp.router": "mlp.gate"}
_SHARED_EXPERTS = {
    "mlp.shared_experts.linear_fc1": "mlp.shared_expert.gate_proj mlp.shared_expert.up_proj",
    "mlp.shared_experts.linear_fc2": "mlp.shared_expert.down_proj",
    "mlp.shared_gate": "mlp.shared_expert_gate",
}
#: An expert's gate, its other half, and its second matrix.
_OF_MIXTRAL = (
    "block_sparse_moe.experts.{}.w1",
    "block_sparse_moe.experts.{}.w3",
    "block_sparse_moe.experts.{}.w2",
)
_OF_QWEN = "mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj", "mlp.experts.{}.down_proj"
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
class Names:
    """The modules of a family; ``sparse`` and ``experts`` are those of layers with experts."""

    words: str
    layers: str
    within_layer: Mapping[str, str]
    final_norm: str
    output: str
    positions: str = ""
    sparse: Mapping[str, str] = field(default_factory=dict)
    experts: tuple[str, str, str] = ("", "", "")


# transformers 5 calls gpt_neox's output lm_head and reads either name; version 4 only knows embed_out.
NAMES = {
    "gpt2": Names(
        "transformer.wte", "transformer.h", _GPT2, "transformer.ln_f", "lm_head", "transformer.wpe"
    ),
    "gpt_neox": Names(
        "gpt_neox.embed_in", "gpt_neox.layers", _GPT_NEOX, "gpt_neox.final_layer_norm", "embed_out"
    ),
}
NAMES |= {
    name: Names("model.embed_tokens", "model.layers", within_layer, "model.norm", "lm_head")
    for name, within_layer in (
        *dict.fromkeys(("llama", "mistral", "qwen2"), _LLAMA).items(),
        ("qwen3", _LLAMA | _QK_NORMS),
        ("olmo2", _OLMO2),
    )
}
NAMES |= {
    name: Names("model.embed_tokens", "model.layers", within, "model.norm", "lm_head", "", sparse, experts)
    for name, within, sparse, experts in (
        ("mixtral", _LLAMA, _MIXTRAL_EXPERTS, _OF_MIXTRAL),
        ("qwen2_moe", _LLAMA, _QWEN_EXPERTS | _SHARED_EXPERTS, _OF_QWEN),
        ("qwen3_moe", _LLAMA | _QK_NORMS, _QWEN_EXPERTS, _OF_QWEN),
        ("olmoe", _LLAMA | _QK_NORMS, _QWEN_EXPERTS, _OF_QWEN),
    )
}
