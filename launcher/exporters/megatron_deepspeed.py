"""Megatron-DeepSpeed's arguments and DeepSpeed's file for it (megatron/arguments.py at 4efb479)."""

from __future__ import annotations

import json
import shlex
from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import padding_notes, refuse
from frontrunner.launcher.exporters.megatron_deepspeed_model import COMBINATIONS, model_arguments
from frontrunner.launcher.exporters.megatron_model import Arguments
from frontrunner.launcher.exporters.target import (
    Exported,
    Refusals,
    Target,
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
    stage = STAGES.get(check_scheme(refusals, spec, layout, tuple(STAGES)), 0)
    check_wires(refusals, spec, layout)
    check_schedule(refusals, spec, ("cosine", "linear", "constant"))
    _check_parallel(refusals, layout, stage)
    refuse(refusals, spec.model, COMBINATIONS)
    refusals.check()
    arguments = model_arguments(spec) | _parallel(spec, stage) | _training(spec)
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


def _check_parallel(refusals: Refusals, layout: Layout, stage: int) -> None:
    refusals.unless(
        layout.virtual_stages == 1,
        "layout.virtual_stages",
        layout.virtual_stages,
        "DeepSpeed's pipeline has no interleaved schedule",
        "use 1",
    )
    refusals.unless(
        layout.pipeline == 1 or stage < 2,
        "layout.pipeline",
        layout.pipeline,
        "DeepSpeed's ZeRO-2 and ZeRO-3 do not work with its pipeline",
        "use preset zero1, or pipeline 1",
    )


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


def _training(spec: RunSpec) -> Arguments:
    training, optimizer = spec.training, spec.optimizer
    found: Arguments = {
        "--seq-length": training.seq_len,
        "--train-iters": training.steps,
        "--seed": training.seed,
        "--optimizer": "adam",
        "--lr": optimizer.learning_rate,
        "--min-lr": optimizer.min_learning_rate,
        "--lr-decay-style": optimizer.decay,
        "--lr-warmup-iters": optimizer.warmup_steps,
        "--lr-decay-iters": optimizer.decay_steps or training.steps,
        "--adam-beta1": optimizer.betas[0],
        "--adam-beta2": optimizer.betas[1],
        "--adam-eps": optimizer.epsilon,
        "--weight-decay": optimizer.weight_decay,
        "--clip-grad": optimizer.clip,
        "--tokenizer-type": "NullTokenizer",
    }
    if training.precision != "float32":
        found["--bf16" if training.precision == "bfloat16" else "--fp16"] = True
    return found


TARGET = Target("megatron-deepspeed", "Megatron-DeepSpeed 4efb479", export)
