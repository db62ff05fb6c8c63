"""Arguments that make a run another one than the figures here describe: what they are, and what they void.

The names are those of Megatron-LM (megatron/training/arguments.py at d98e8a64), Megatron-DeepSpeed and
GPT-NeoX (neox_args.py at ea7aefd).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

#: ``model``: the shape is not that of a dense decoder, so neither parameters nor FLOPs are known.
#: ``attention``: its FLOPs are not known. ``plan``: the planner does not know how it is run.
Void = Literal["model", "attention", "plan"]


class Unsupported(NamedTuple):
    """An argument, with its value, and what it voids."""

    void: Void
    reason: str


#: Values that mean that a feature is not used.
_UNUSED = re.compile(r"(?:None|False|0(?:\.0)?|\[\]|\{\}|'')?")
#: Likewise, of a number of experts or ranks. Megatron-DeepSpeed prints ``[1]``.
_ONE = re.compile(r"1|\[1\]")
_WITHOUT: dict[str, tuple[Void, str]] = {
    "num_experts": ("model", "a mixture of experts"),
    "num_moe_experts": ("model", "a mixture of experts"),
    "moe_num_experts": ("model", "a mixture of experts"),
    "multi_latent_attention": ("model", "multi-latent attention"),
    "mtp_num_layers": ("model", "multi-token prediction"),
    "hybrid_attention_ratio": ("model", "a hybrid of attention and state-space layers"),
    "hybrid_override_pattern": ("model", "a hybrid of attention and state-space layers"),
    "hybrid_layer_pattern": ("model", "a hybrid of attention and state-space layers"),
    "experimental_attention_variant": ("model", "an experimental attention"),
    "linear_attention_freq": ("model", "linear attention"),
    "attention_output_gate": ("model", "gated attention"),
    "heterogeneous_layers_config_path": ("model", "layers of different shapes"),
    "decoder_seq_length": ("model", "an encoder and a decoder"),
    "retro_add_retriever": ("model", "retrieval layers"),
    "vision_pretraining": ("model", "a vision model"),
    "sliding_window_width": ("attention", "sliding-window attention"),
    "window_size": ("attention", "sliding-window attention"),
    "context_parallel_size": ("plan", "context parallelism"),
    "ds_sequence_parallel_size": ("plan", "DeepSpeed's sequence parallelism"),
    "expert_model_parallel_size": ("plan", "expert parallelism"),
    "decoder_first_pipeline_num_layers": ("plan", "stages of different lengths"),
    "decoder_last_pipeline_num_layers": ("plan", "stages of different lengths"),
    "pipeline_model_parallel_layout": ("plan", "stages of different lengths"),
    "account_for_embedding_in_pipeline_split": ("plan", "stages of different lengths"),
    "account_for_loss_in_pipeline_split": ("plan", "stages of different lengths"),
    "optimizer_cpu_offload": ("plan", "an optimizer on the host"),
    "cpu_offload": ("plan", "an optimizer on the host"),
    "use_torch_fsdp2": ("plan", "FSDP"),
    "use_megatron_fsdp": ("plan", "FSDP"),
    "fp8": ("plan", "8-bit matrix products"),
    "fp4": ("plan", "4-bit matrix products"),
}
#: GPT-NeoX's kinds of layers that are attention over the whole sequence.
_FULL_ATTENTION = {"global", "flash"}
_STATE_SPACE = {"mamba", "rwkv"}


def unsupported(arguments: Mapping[str, str], experts: bool = False) -> Iterator[Unsupported]:
    """What these arguments, as they were printed, void.

    ``experts``: the mixture of experts was understood, so that only how tokens travel is not known.
    """
    for name, (void, words) in _WITHOUT.items():
        if experts and name in ("num_experts", "num_moe_experts"):
            void = "plan"
        value = arguments.get(name, "")
        one = name.endswith(("experts", "parallel_size")) and _ONE.fullmatch(value)
        if not one and not _UNUSED.fullmatch(value):
            yield Unsupported(void, f"{name} = {value}: {words}")
    kinds = set(re.findall(r"[a-z_]+", arguments.get("attention_config", ""))) - _FULL_ATTENTION - {"none"}
    if kinds:
        yield Unsupported(
            "model" if kinds & _STATE_SPACE else "attention",
            f"attention_config has {', '.join(sorted(kinds))}",
        )
