"""Turns a run into DeepSpeed's configuration, with the settings that favour it most in comparisons."""

from __future__ import annotations

from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout


def zero_stage(layout: Layout) -> int:
    """The ZeRO stage of DeepSpeed that matches the degrees: 0, 1, 2 or 3."""
    return sum(degree > 1 for degree in (layout.weights, layout.gradients, layout.optimizer))


def partition(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    """``zero_optimization``: what is cut, plus the keys of ZeRO++."""
    stage = zero_stage(layout)
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": stage > 1, "contiguous_gradients": True}
    if stage == 3:
        wires = spec.layout.sharding.wires(spec.training.precision)
        if layout.secondary < layout.weights:
            zero["zero_hpz_partition_size"] = layout.secondary
        if wires.weights == "int8":
            zero["zero_quantized_weights"] = True
        if wires.gradients == "int4":
            zero["zero_quantized_gradients"] = True
    return zero


def deepspeed_config(spec: RunSpec, layout: Layout, layer_numel: int) -> dict[str, Any]:
    """What ``deepspeed.initialize`` takes; ``layer_numel`` is the number of values in the largest layer.

    DeepSpeed's defaults (keep up to 1e9 values, prefetch 5e7 values) would gather a small model once and
    never free it. Here one layer is prefetched and none is kept for later, so ZeRO-3 holds at most two
    layers, like our own engine.
    """
    zero = partition(spec, layout)
    zero |= {"reduce_bucket_size": layer_numel, "allgather_bucket_size": layer_numel}
    if zero["stage"] == 3:
        zero |= {
            "stage3_prefetch_bucket_size": layer_numel,
            "stage3_max_live_parameters": 2 * layer_numel,
            "stage3_max_reuse_distance": 0,
            "stage3_param_persistence_threshold": 0,
            "stage3_model_persistence_threshold": 0,
        }
    training = spec.training
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": spec.layout.micro_batch_size,
        "gradient_accumulation_steps": spec.grad_accum_steps,
        "train_batch_size": training.global_batch_size,
        "gradient_clipping": spec.optimizer.clip,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 1 << 30,
    }
    if training.precision == "bfloat16":
        config["bf16"] = {"enabled": True}
        short = {"float32": "fp32", "bfloat16": "bf16"}
        config["data_types"] = {"grad_accum_dtype": short[training.gradient_dtype]}
    return config
