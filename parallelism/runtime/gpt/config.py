"""Turns a run's specification into megatron-core's configuration."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.parallelism.runtime.device import DTYPES

ACTIVATIONS: dict[str, Callable[..., torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "swiglu": F.silu,
}


def transformer_config(spec: RunSpec) -> TransformerConfig:
    """megatron-core's view of a run.

    Fusions that need its CUDA extensions are off. Recomputation is not set here but applied to the built
    layers (see ``recompute``), because the sharding engine's hooks must stay outside it.
    """
    model, layout = spec.model, spec.layout
    dtype = DTYPES[spec.training.precision]
    return TransformerConfig(
        num_layers=model.num_layers,
        hidden_size=model.hidden_size,
        num_attention_heads=model.num_heads,
        num_query_groups=model.num_kv_heads,
        kv_channels=model.head_dim,
        ffn_hidden_size=model.ffn_hidden_size,
        normalization="RMSNorm" if model.normalization == "rmsnorm" else "LayerNorm",
        layernorm_epsilon=model.norm_epsilon,
        activation_func=ACTIVATIONS[model.activation],
        gated_linear_unit=model.activation == "swiglu",
        add_bias_linear=model.linear_bias,
        add_qkv_bias=model.qkv_bias,
        attention_dropout=model.attention_dropout,
        hidden_dropout=model.hidden_dropout,
        tensor_model_parallel_size=layout.tensor,
        sequence_parallel=layout.sequence_parallel,
        pipeline_model_parallel_size=layout.pipeline,
        virtual_pipeline_model_parallel_size=layout.virtual_stages if layout.virtual_stages > 1 else None,
        pipeline_dtype=dtype,
        params_dtype=dtype,
        fp16=dtype == torch.float16,
        bf16=dtype == torch.bfloat16,
        # Parameters are created without values; the sharding engine fills them unit by unit.
        use_cpu_initialization=True,
        perform_initialization=False,
        gradient_accumulation_fusion=False,
        masked_softmax_fusion=False,
        bias_dropout_fusion=False,
        bias_activation_fusion=False,
        apply_rope_fusion=False,
        persist_layer_norm=False,
        # With two stages and virtual stages, batched point-to-point silently confuses the previous and the
        # next rank, because they are the same.
        batch_p2p_comm=False,
        overlap_p2p_comm=layout.virtual_stages > 1,
        # Freeing a sent output is only safe if sends are waited for.
        deallocate_pipeline_outputs=layout.virtual_stages == 1,
    )


def initial_std(model: ModelSpec, parameter: str) -> float:
    """Initial standard deviation of a weight (GPT-2: residual projections times 1/sqrt(2 num_layers))."""
    residual = parameter.endswith(("linear_proj.weight", "linear_fc2.weight"))
    return model.init_std / math.sqrt(2 * model.num_layers) if residual else model.init_std
