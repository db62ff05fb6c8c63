"""A mixture of experts in arguments of Megatron-LM (megatron/training/arguments.py at core_v0.16.1)."""

from __future__ import annotations

import re

from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer

_SCORES = {"softmax": "softmax", "sigmoid": "sigmoid"}
#: How tokens travel and how products are computed, not what.
_HOW = (
    *("moe_token_dispatcher_type", "moe_grouped_gemm", "moe_permute_fusion", "moe_router_dtype"),
    *(
        "moe_use_legacy_grouped_gemm",
        "moe_shared_expert_overlap",
        "moe_per_layer_logging",
        "moe_router_fusion",
    ),
    *("overlap_moe_expert_parallel_comm", "moe_enable_deepep", "moe_flex_dispatcher_backend"),
)
_NEAR = "choose a near one: --set moe_router_load_balancing_type=seq_aux_loss"
#: What makes another router, and when it is off.
_OTHERS = {
    "moe_expert_capacity_factor": "drops tokens that are too many for an expert",
    "moe_router_enable_expert_bias": "balances experts by biases",
    "moe_router_num_groups": "chooses experts by groups",
    "moe_router_group_topk": "chooses experts by groups",
    "moe_router_topk_limited_devices": "chooses experts by groups",
    "moe_router_topk_scaling_factor": "scales the weights of experts",
    "moe_input_jitter_eps": "adds noise to what the router reads",
    "moe_extended_tp": "cuts experts over all ranks",
}


def convert_experts(own: Conversion) -> None:
    """The mixture, and the ranks over which experts are cut; nothing for a dense model."""
    settings = own.settings
    count = settings.get("num_experts") or settings.get("num_moe_experts")
    several = count is not None and (integer(count.value) or 1) > 1
    if count is None or not several:
        return
    own.whole("model.experts.num_experts", "num_experts", "num_moe_experts")
    own.whole("layout.expert", "expert_model_parallel_size", default=1)
    chosen = own.whole("model.experts.experts_per_token", "moe_router_topk", default=2)
    width = own.got("model.ffn_hidden_size") or 4 * (own.got("model.hidden_size") or 0)
    width = own.whole("model.experts.ffn_hidden_size", "moe_ffn_hidden_size", default=width or None)
    _convert_layers(own)
    _convert_shared(own, width)
    _convert_router(own, chosen or 1)
    tensor = own.take("expert_tensor_parallel_size")
    if tensor and tensor.value is not None and integer(tensor.value) != (own.got("layout.tensor") or 1):
        own.ignore(tensor, "experts are cut over as many tensor ranks as everything else")
    own.take(*_HOW)
    for key, what in _OTHERS.items():
        setting = own.take(key)
        if setting and setting.value not in (None, False, 0, "0", "None", "False"):
            own.refuse(setting, f"{what}, which a run file cannot say")


def _convert_router(own: Conversion, chosen: int) -> None:
    scores = own.choose("model.experts.router", _SCORES, "moe_router_score_function", default="softmax")
    before = own.take("moe_router_pre_softmax")
    if scores == "softmax":
        origin: Setting | str = before or DEFAULT
        own.put("model.experts.normalize", not own.switch("moe_router_pre_softmax"), origin)
    else:
        own.put("model.experts.normalize", chosen > 1, "several sigmoids are always normalized")
    kind = own.take("moe_router_load_balancing_type")
    name = str(kind.value) if kind and kind.value is not None else "aux_loss"
    coefficient = own.take("moe_aux_loss_coeff")
    if name == "none":
        own.put("model.experts.aux_loss", 0.0, kind or DEFAULT)
    elif name in ("aux_loss", "seq_aux_loss", "global_aux_loss"):
        own.real("model.experts.aux_loss", "moe_aux_loss_coeff", default=0.0)
        if kind and name != "seq_aux_loss":
            own.ignore(kind, "the balancing loss is that of each sequence (seq_aux_loss)")
    else:
        assert kind is not None
        own.refuse(kind, "has no counterpart in a run file", _NEAR)
    if name == "none" and coefficient and coefficient.value is not None:
        own.ignore(coefficient, "there is no balancing loss: --moe-router-load-balancing-type is none")
    own.real("model.experts.z_loss", "moe_z_loss_coeff", default=0.0)


def _convert_shared(own: Conversion, width: int | None) -> None:
    """One MLP, whose width must be a multiple of one expert's."""
    setting = own.take("moe_shared_expert_intermediate_size")
    total = own.value(setting, integer, "a whole number, at least 1") if setting and setting.value else None
    if setting and total and width:
        if total % width:
            own.refuse(setting, f"must be a multiple of the {width} of an expert", "use another width")
        else:
            own.put("model.experts.shared_experts", total // width, setting)
    if own.switch("moe_shared_expert_gate") and total:
        own.put("model.experts.shared_gate", True, own.settings["moe_shared_expert_gate"])


def _convert_layers(own: Conversion) -> None:
    """Which layers have experts: every one, or a list such as ``([0]*1+[1]*27)``."""
    setting = own.take("moe_layer_freq")
    if setting is None or setting.value is None or str(setting.value) == "1":
        return
    sparse, layers = _pattern(str(setting.value)), own.got("model.num_layers")
    every = integer(setting.value)
    if sparse is None and every and layers:
        sparse = [number % every == 0 for number in range(layers)]
    if sparse and len(sparse) == layers and any(sparse):
        first = sparse.index(True)
        period = next((n for n in range(1, layers) if sparse[first + n : first + n + 1] == [True]), 1)
        before = first - period + 1  # dense layers that belong to no group
        like = [number >= before and (number - before + 1) % period == 0 for number in range(layers)]
        if before >= 0 and like == sparse:
            own.put("model.experts.first_dense_layers", before, setting)
            own.put("model.experts.every", period, setting)
            return
    own.refuse(setting, "has sparse layers where a run file cannot have them", "use 1")


def _pattern(text: str) -> list[bool] | None:
    """The list that an expression of lists, products and sums of lists gives; None for anything else."""
    text = re.sub(r"[\s'\"]", "", text).removeprefix("(").removesuffix(")")
    found: list[bool] = []
    for part in text.split("+"):
        term = re.fullmatch(r"\(?\[([01](?:,[01])*)\](?:\*(\d{1,4}))?\)?", part)
        if term is None:
            return None
        found += [bit == "1" for bit in term[1].split(",")] * int(term[2] or 1)
    return found
