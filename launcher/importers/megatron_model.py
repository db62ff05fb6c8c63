"""The model in arguments of Megatron-LM and Megatron-DeepSpeed."""

from __future__ import annotations

from frontrunner.launcher.importers import vocabularies
from frontrunner.launcher.importers.megatron_experts import convert_experts
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, integer, number

_POSITIONS = {"learned_absolute": "learned", "rope": "rotary", "rotary": "rotary"}
_NORMS = {"layernorm": "layernorm", "rmsnorm": "rmsnorm"}


def convert_model(own: Conversion) -> None:
    """The model's keys. What makes another model than these keys can say is refused."""
    own.whole("model.num_layers", "num_layers", "encoder_num_layers")
    own.whole("model.hidden_size", "hidden_size")
    own.whole("model.num_heads", "num_attention_heads")
    own.whole("model.head_dim", "kv_channels")
    _convert_groups(own)
    _convert_mlp(own)
    _convert_positions(own)
    own.choose("model.normalization", _NORMS, "normalization", default="layernorm")
    own.real("model.norm_epsilon", "norm_epsilon", "layernorm_epsilon", default=1e-5)
    put_qk_norm(own, "qk_layernorm")
    biased = not own.switch("disable_bias_linear") and own.switch("add_bias_linear", True)
    own.put("model.linear_bias", biased, own.take("disable_bias_linear", "add_bias_linear") or DEFAULT)
    if own.switch("add_qkv_bias"):
        own.put("model.qkv_bias", True, own.settings["add_qkv_bias"])
    untied = own.switch("untie_embeddings_and_output_weights")
    own.put("model.tie_embeddings", not untied, own.take("untie_embeddings_and_output_weights") or DEFAULT)
    own.real("model.attention_dropout", "attention_dropout", default=0.1)
    own.real("model.hidden_dropout", "hidden_dropout", default=0.1)
    own.real("model.init_std", "init_method_std", default=0.02)
    vocabularies.put(own, 128)
    if own.trainer == "megatron":
        convert_experts(own)


def put_qk_norm(own: Conversion, key: str) -> None:
    """Norms of each head's queries and keys, of the kind that the other norms are."""
    if not own.switch(key):
        return
    if own.got("model.normalization") == "rmsnorm":
        own.put("model.qk_norm", "head", own.settings[key])
    else:
        own.refuse(own.settings[key], "norms queries and keys with a layer norm, which a run file cannot say")


def _convert_groups(own: Conversion) -> None:
    """Megatron-LM groups heads only with a switch; Megatron-DeepSpeed has the number alone."""
    groups = own.take("num_query_groups")
    if own.switch("group_query_attention"):
        own.whole("model.num_kv_heads", "num_query_groups", default=1)
    elif groups and groups.value is not None and integer(groups.value) != 1:
        own.ignore(groups, "every head has its own keys: --group-query-attention is not given")
    own.whole("model.num_kv_heads", "num_key_value_heads")
    if (kind := own.take("attention_head_type")) and kind.value == "multiquery":  # BigCode's fork
        own.put("model.num_kv_heads", 1, kind)


def _convert_mlp(own: Conversion) -> None:
    """Width and activation. By default a gated MLP is two thirds as wide, down to a multiple of 64."""
    gated, hidden = own.switch("swiglu"), own.got("model.hidden_size")
    if own.whole("model.ffn_hidden_size", "ffn_hidden_size") is None and gated and hidden:
        own.put("model.ffn_hidden_size", int((4 * hidden * 2 / 3) / 64) * 64, DEFAULT)
    # The kernel that adds the bias computes the tanh approximation; Megatron-LM never reads --openai-gelu.
    fused = not own.switch("no_bias_gelu_fusion") and own.switch("bias_gelu_fusion", True)
    biased = not own.switch("disable_bias_linear") and own.switch("add_bias_linear", True)
    approximate = own.switch("openai_gelu") and own.trainer == "megatron-deepspeed"
    if gated:
        own.put("model.activation", "swiglu", own.settings["swiglu"])
    elif fused and biased or approximate:
        own.put("model.activation", "gelu_tanh", "the tanh approximation of the kernel that adds the bias")
    else:
        own.put("model.activation", "gelu", "the exact GELU: no kernel adds a bias")


def _convert_positions(own: Conversion) -> None:
    kind = own.choose("model.position_embedding", _POSITIONS, "position_embedding_type", default="learned")
    own.take("no_position_embedding", "add_position_embedding")
    if own.switch("use_rotary_position_embeddings"):
        kind = "rotary"
        own.put("model.position_embedding", kind, own.settings["use_rotary_position_embeddings"])
    own.whole("model.max_position_embeddings", "max_position_embeddings")
    own.take("rotary_base", "rotary_percent", "rope_scaling_factor")
    stretched = own.take("rotary_seq_len_interpolation_factor", "rotary_scaling_factor")
    if kind != "rotary":
        return
    own.real("model.rotary_base", "rotary_base")
    own.real("model.rotary_fraction", "rotary_percent")
    factor = own.settings.get("rope_scaling_factor")
    if own.switch("use_rope_scaling") and factor and number(factor.value) != 8.0:
        own.ignore(factor, "frequencies are scaled by 8: Megatron-LM's builder does not pass the factor on")
    if own.switch("use_rope_scaling"):
        own.put("model.rotary_scaling_factor", 8.0, own.settings["use_rope_scaling"])
    if stretched and stretched.value is not None and number(stretched.value) != 1.0:
        own.refuse(stretched, "is linear interpolation of positions")
