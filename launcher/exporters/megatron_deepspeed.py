"""Megatron-DeepSpeed's arguments and DeepSpeed's file for it (megatron/arguments.py at 4efb479)."""

from __future__ import annotations

import json
import shlex
from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import padding_notes, refuse
from frontrunner.launcher.exporters.megatron_deepspeed_model import COMBINATIONS, model_arguments
from frontrunner.launcher.exporters.megatron_model import Arguments, precision_arguments, training_arguments
from frontrunner.launcher.exporters.target import (
    Exported,
    Refusals,
    Target,
    check_deepspeed,
    check_dense,
    check_key_values,
    check_schedule,
    check_scheme,
    check_wires,
)
from frontrunner.parallelism.layout import Layout

STAGES = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3}
FILE = "ds_config.json"


def export(spec: RunSpec, layout: Layout) -> Exported:
    """Shell lines that write DeepSpeed's file, then the arguments.

    Raises SpecError for anything that Megatron-DeepSpeed does not support.
    """
    refusals = Refusals("Megatron-DeepSpeed")
    check_dense(refusals, spec)
    sharding = check_scheme(refusals, spec, layout, tuple(STAGES))
    stage = STAGES.get(sharding, 0)
    check_wires(refusals, spec, layout)
    check_key_values(refusals, spec)
    check_schedule(refusals, spec, ("cosine", "linear", "constant"))
    check_deepspeed(refusals, spec, layout, sharding)
    refuse(refusals, spec.model, COMBINATIONS)
    refusals.check()
    arguments = model_arguments(spec) | _parallel(spec, stage) | training_arguments(spec)
    arguments |= {"--tokenizer-type": "NullTokenizer"} | precision_arguments(spec)
    lines = [
        name if value is True else f"{name} {shlex.quote(str(value))}" for name, value in arguments.items()
    ]
    file = f"cat > {FILE} <<'END'\n{json.dumps(deepspeed_file(spec, stage), indent=2)}\nEND\n"
    notes = ["data: add --data-path, and your tokenizer in place of NullTokenizer"]
    return Exported(file + " \\\n  ".join(["pretrain_gpt.py", *lines]), (*notes, *padding_notes(spec.model)))


def deepspeed_file(spec: RunSpec, stage: int) -> dict[str, Any]:
    """DeepSpeed's part: batch, ZeRO stage, precision. Optimizer and schedule are Megatron's."""
    found: dict[str, Any] = {
        "train_batch_size": spec.training.global_batch_size,
        "train_micro_batch_size_per_gpu": spec.layout.micro_batch_size,
        "gradient_accumulation_steps": spec.grad_accum_steps,
        "zero_optimization": {"stage": stage},
        "gradient_clipping": spec.optimizer.clip,
    }
    if spec.training.precision == "bfloat16":
        short = {"float32": "fp32", "bfloat16": "bf16"}
        found["bf16"] = {"enabled": True}
        found["data_types"] = {"grad_accum_dtype": short[spec.training.gradient_dtype]}
    elif spec.training.precision == "float16":
        found["fp16"] = {"enabled": True, "loss_scale": 0}
    return found


def _parallel(spec: RunSpec, stage: int) -> Arguments:
    layout = spec.layout
    found: Arguments = {
        "--deepspeed": True,
        "--deepspeed_config": FILE,
        "--zero-stage": stage,
        "--tensor-model-parallel-size": layout.tensor,
        "--pipeline-model-parallel-size": layout.pipeline,
        "--micro-batch-size": layout.micro_batch_size,
        "--global-batch-size": spec.training.global_batch_size,
    }
    if layout.pipeline == 1:
        found["--no-pipeline-parallel"] = True
    if layout.sequence_parallel:
        found["--sequence-parallel"] = True
    if layout.recompute != "none":
        found |= {"--deepspeed-activation-checkpointing": True, "--recompute-granularity": layout.recompute}
    if layout.recompute == "full":
        found |= {"--recompute-method": "uniform", "--recompute-num-layers": 1}
    return found


TARGET = Target("megatron-deepspeed", "Megatron-DeepSpeed 4efb479", export)
