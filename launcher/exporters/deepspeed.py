"""DeepSpeed's configuration file (deepspeed 0.19)."""

from __future__ import annotations

import json
from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.target import Exported, Refusals, Target, check_dense, check_schedule
from frontrunner.parallelism.engines import check_deepspeed
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.runtime.baselines.deepspeed_config import partition


def config(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    """The whole file. Raises SpecError for anything that DeepSpeed does not support."""
    check_deepspeed(spec, layout)
    refusals = Refusals("DeepSpeed")
    check_dense(refusals, spec)
    check_schedule(refusals, spec, ("cosine", "constant"))
    refusals.unless(
        spec.optimizer.warmup_steps > 0 or spec.optimizer.decay == "constant",
        "optimizer.warmup_steps",
        spec.optimizer.warmup_steps,
        "its cosine schedule needs at least one warm-up step",
        "use 1 or more",
    )
    refusals.check()
    return _batch(spec) | {"zero_optimization": partition(spec, layout)} | _numbers(spec) | _optimizer(spec)


def export(spec: RunSpec, layout: Layout) -> Exported:
    notes = ["only DeepSpeed's settings; model and data come from your script"]
    if layout.pipeline > 1:
        notes.append(f"pipeline {layout.pipeline}: split your model with deepspeed.pipe.PipelineModule")
    if layout.tensor > 1:
        notes.append(f"tensor {layout.tensor}: pass deepspeed.initialize an mpu with these groups")
    return Exported(json.dumps(config(spec, layout), indent=2), tuple(notes))


def _batch(spec: RunSpec) -> dict[str, Any]:
    return {
        "train_batch_size": spec.training.global_batch_size,
        "train_micro_batch_size_per_gpu": spec.layout.micro_batch_size,
        "gradient_accumulation_steps": spec.grad_accum_steps,
    }


def _numbers(spec: RunSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"gradient_clipping": spec.optimizer.clip}
    if spec.training.precision == "bfloat16":
        found["bf16"] = {"enabled": True}
        short = {"float32": "fp32", "bfloat16": "bf16"}
        found["data_types"] = {"grad_accum_dtype": short[spec.training.gradient_dtype]}
    elif spec.training.precision == "float16":
        found["fp16"] = {"enabled": True, "loss_scale": 0}
    return found


def _optimizer(spec: RunSpec) -> dict[str, Any]:
    own = spec.optimizer
    params = {"lr": own.learning_rate, "betas": list(own.betas), "eps": own.epsilon}
    found: dict[str, Any] = {
        "optimizer": {"type": "AdamW", "params": params | {"weight_decay": own.weight_decay}}
    }
    if own.decay == "cosine":
        found["scheduler"] = {
            "type": "WarmupCosineLR",
            "params": {
                "total_num_steps": own.decay_steps or spec.training.steps,
                "warmup_num_steps": own.warmup_steps,
                "warmup_type": "linear",
                "cos_min_ratio": own.min_learning_rate / own.learning_rate,
            },
        }
    elif own.warmup_steps:
        found["scheduler"] = {
            "type": "WarmupLR",
            "params": {
                "warmup_max_lr": own.learning_rate,
                "warmup_num_steps": own.warmup_steps,
                "warmup_type": "linear",
            },
        }
    return found


TARGET = Target("deepspeed", "DeepSpeed 0.19.8", export)
