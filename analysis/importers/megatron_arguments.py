"""Model and layout from the arguments that a Megatron-like trainer prints when it starts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from frontrunner.configs.schema import ModelSpec

#: GPT-NeoX's names of arguments that Megatron names differently.
_NEOX = {
    "model_parallel_size": "tensor_model_parallel_size",
    "pipe_parallel_size": "pipeline_model_parallel_size",
    "train_micro_batch_size_per_gpu": "micro_batch_size",
    "train_batch_size": "global_batch_size",
    "global_num_gpus": "world_size",
    "num_kv_heads": "num_key_value_heads",
    "norm": "normalization",
    "no_weight_tying": "untie_embeddings_and_output_weights",
}
#: GPT-NeoX's gated activations (megatron/model/activations.py): their MLP has three matrices.
_GATED = {"swiglu", "geglu", "reglu", "bilinear", "glu"}
#: GPT-NeoX's MLP of Llama, before gated activations were a choice, had widths of multiples of this.
_LLAMA_WIDTHS = 256


class Arguments:
    """The table of arguments, read as numbers, switches and words. Values of another type are None."""

    def __init__(self, given: Mapping[str, str], neox: bool) -> None:
        self._given, self.neox = dict(given), neox
        if neox:
            for theirs, ours in _NEOX.items():
                if theirs in given:
                    self._given.setdefault(ours, given[theirs])

    def number(self, *names: str) -> int | None:
        """The first of these that is a positive integer below 2^31."""
        for name in names:
            text = self._given.get(name, "")
            if re.fullmatch(r"\d{1,10}(\.0)?", text) and 0 < (value := int(float(text))) < 2**31:
                return value
        return None

    def switch(self, name: str) -> bool:
        return self._given.get(name) == "True"

    def word(self, name: str) -> str | None:
        value = self._given.get(name)
        return None if value in (None, "None", "") else value

    def share(self, name: str) -> float:
        """A fraction, for example a dropout; 0 if the value is not one."""
        text = self._given.get(name, "")
        return float(text) if re.fullmatch(r"0(\.\d{1,9})?", text) else 0.0


def layout(arguments: Arguments) -> dict[str, Any]:
    """The layout in a run file's terms, plus ``context``, ``data`` and ``grad_accum_steps`` if known."""
    tensor = arguments.number("tensor_model_parallel_size") or 1
    pipeline = max(arguments.number("pipeline_model_parallel_size") or 1, 1)
    context = arguments.number("context_parallel_size", "ds_sequence_parallel_size") or 1
    world = arguments.number("world_size")
    data = arguments.number("data_parallel_size")
    if data is None and world is not None:
        data = world // (tensor * pipeline * context) or None
    micro = arguments.number("micro_batch_size")
    batch = arguments.number("global_batch_size")
    steps = batch // (micro * data) if batch and micro and data else None
    return {
        "tensor": tensor,
        "pipeline": pipeline,
        **({"context": context} if context > 1 else {}),
        "data": data,
        "virtual_stages": arguments.number("virtual_pipeline_model_parallel_size") or 1,
        "micro_batch_size": micro,
        "grad_accum_steps": steps,
        "sequence_parallel": arguments.switch("sequence_parallel"),
        "recompute": recompute(arguments),
        "sharding": _sharding(arguments),
    }


def recompute(arguments: Arguments) -> str:
    """none, selective or full, from the switches of Megatron-LM, Megatron-DeepSpeed and GPT-NeoX."""
    granularity = arguments.word("recompute_granularity")
    if granularity in ("full", "selective"):
        return granularity
    return "full" if arguments.switch("checkpoint_activations") else "none"


def precision(arguments: Arguments) -> str | None:
    """The type in which matrix products are computed."""
    if arguments.word("fp8") or arguments.word("fp4"):
        return "float8" if arguments.word("fp8") else "float4"
    named = f"{arguments.word('params_dtype')} {arguments.word('precision')}"
    if arguments.switch("bf16") or "bfloat16" in named:
        return "bfloat16"
    if arguments.switch("fp16") or "float16" in named or "fp16" in named:
        return "float16"
    return "float32" if arguments.word("params_dtype") else None


def model(arguments: Arguments, name: str, padded_vocabulary: int | None) -> ModelSpec | None:
    """The model; None if its shape is missing or impossible."""
    layers, hidden = arguments.number("num_layers"), arguments.number("hidden_size")
    heads = arguments.number("num_attention_heads")
    vocabulary = padded_vocabulary or arguments.number("padded_vocab_size", "vocab_size")
    if not (layers and hidden and heads and vocabulary):
        return None
    gated, width = _mlp(arguments, hidden)
    given: dict[str, Any] = {
        "name": name,
        "num_layers": layers,
        "hidden_size": hidden,
        "num_heads": heads,
        "vocab_size": vocabulary,
        "padded_vocab_size": vocabulary,
        "max_position_embeddings": arguments.number("max_position_embeddings", "seq_length") or 2048,
        "position_embedding": _positions(arguments),
        "normalization": "rmsnorm"
        if "rmsnorm" in (arguments.word("normalization") or "").lower()
        else "layernorm",
        "activation": "swiglu" if gated else "gelu_tanh",
        "tie_embeddings": not arguments.switch("untie_embeddings_and_output_weights"),
        "hidden_dropout": arguments.share("hidden_dropout"),
        "attention_dropout": arguments.share("attention_dropout"),
    }
    optional: dict[str, Any] = {
        "num_kv_heads": arguments.number("num_query_groups")
        if arguments.switch("group_query_attention")
        else arguments.number("num_key_value_heads"),
        "head_dim": arguments.number("kv_channels"),
        "ffn_hidden_size": width,
    }
    if (mixture := experts(arguments, layers)) is not None:
        optional["experts"] = mixture
        given["linear_bias"] = False
    try:
        return ModelSpec.model_validate(given | {key: value for key, value in optional.items() if value})
    except ValidationError:
        return None


def experts(arguments: Arguments, layers: int) -> dict[str, Any] | None:
    """The mixture of experts of Megatron-LM's arguments; None: there is none, or it is of another kind.

    Which weights it has and which of them a token uses is all that its FLOPs depend on.
    """
    count, chosen = arguments.number("num_experts", "num_moe_experts"), arguments.number("moe_router_topk")
    width = arguments.number("moe_ffn_hidden_size", "ffn_hidden_size")
    first = _first_dense_layers(arguments.word("moe_layer_freq") or "1", layers)
    shared = arguments.number("moe_shared_expert_intermediate_size") or 0
    if arguments.neox or count in (None, 1) or not (count and chosen and width) or first is None:
        return None
    if chosen > count or shared % width:
        return None
    return {
        "num_experts": count,
        "experts_per_token": chosen,
        "ffn_hidden_size": width,
        "first_dense_layers": first,
        "shared_experts": shared // width,
        "shared_gate": bool(shared) and arguments.switch("moe_shared_expert_gate"),
        "normalize": not arguments.switch("moe_router_pre_softmax"),
    }


def _first_dense_layers(frequency: str, layers: int) -> int | None:
    """Of ``moe_layer_freq``, 1 or a list of zeros and ones; None if dense layers are not the first ones."""
    if frequency == "1":
        return 0
    kinds = re.findall(r"[01]", frequency) if re.fullmatch(r"\[[01, ]*\]", frequency) else []
    first = kinds.count("0")
    dense_first = kinds == ["0"] * first + ["1"] * (layers - first)
    return first if dense_first and first < layers else None


def _mlp(arguments: Arguments, hidden: int) -> tuple[bool, int | None]:
    """Whether the MLP is gated, and its width; None: the trainer's own default."""
    activation = arguments.word("activation")
    gated = activation in _GATED or arguments.word("glu_activation") is not None
    if not arguments.neox:
        gated = gated or any(arguments.switch(key) for key in ("swiglu", "gated_linear_unit"))
        return gated, arguments.number("ffn_hidden_size")
    width, multiple = arguments.number("intermediate_size"), arguments.number("mlp_multiple_of") or 1
    if gated:
        width = int((width or 4 * hidden) * 2 / 3) // 2
    elif arguments.word("mlp_type") == "llama":
        gated, width, multiple = True, width or int(8 * hidden / 3), _LLAMA_WIDTHS
    else:
        width = width or 4 * hidden
    return gated, -(-width // multiple) * multiple


def _positions(arguments: Arguments) -> str:
    """Positions without parameters (ALiBi) count as rotary: neither adds to the embedding."""
    kind = " ".join(
        str(arguments.word(key))
        for key in ("position_embedding_type", "pos_emb", "use_rotary_position_embeddings")
    )
    return "rotary" if re.search(r"alibi|rotary|rope|True", kind) else "learned"


def _sharding(arguments: Arguments) -> str:
    """What shards the optimizer state: the ZeRO stage, or Megatron's distributed optimizer."""
    if arguments.switch("use_distributed_optimizer"):
        return "distributed optimizer"
    stage = re.match(r"([0-3])(\.0)?$", arguments.word("zero_stage") or "")
    nested = re.search(r"'stage': ([0-3])", arguments.word("zero_optimization") or "")
    found = stage or nested
    return f"zero{found[1]}" if found else "none"
