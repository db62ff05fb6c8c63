"""GPT-NeoX's configuration file (megatron/neox_arguments at ea7aefd)."""

from __future__ import annotations

from typing import Any

import yaml

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import padding_notes, refuse
from frontrunner.launcher.exporters.gpt_neox_model import COMBINATIONS, model_notes, model_section
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


def config(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    """The whole file. Raises SpecError for anything that GPT-NeoX does not support."""
    refusals = Refusals("GPT-NeoX")
    check_dense(refusals, spec)
    sharding = check_scheme(refusals, spec, layout, tuple(STAGES))
    check_wires(refusals, spec, layout)
    check_key_values(refusals, spec)
    check_schedule(refusals, spec, ("cosine", "linear", "constant"))
    _check_parallel(refusals, spec, layout, sharding)
    refuse(refusals, spec.model, COMBINATIONS)
    refusals.check()
    return _parallel(spec, layout) | model_section(spec) | _training(spec) | _zero(spec, sharding)


def export(spec: RunSpec, layout: Layout) -> Exported:
    notes = [
        "data and tokenizer: add data_path, vocab_file and tokenizer_type",
        *model_notes(spec),
        *padding_notes(spec.model),
    ]
    return Exported(yaml.safe_dump(config(spec, layout), sort_keys=False).rstrip(), tuple(notes))


def _check_parallel(refusals: Refusals, spec: RunSpec, layout: Layout, sharding: str) -> None:
    check_deepspeed(refusals, spec, layout, sharding)
    refusals.unless(
        spec.layout.recompute != "selective",
        "layout.recompute",
        "selective",
        "it recomputes whole layers or nothing",
        "use none or full",
    )


def _parallel(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = {
        # 0 disables DeepSpeed's pipeline module, as ZeRO-2 and ZeRO-3 require.
        "pipe_parallel_size": layout.pipeline if layout.pipeline > 1 else 0,
        "model_parallel_size": layout.tensor,
        "train_batch_size": spec.training.global_batch_size,
        "train_micro_batch_size_per_gpu": spec.layout.micro_batch_size,
        "gradient_accumulation_steps": spec.grad_accum_steps,
    }
    if spec.layout.sequence_parallel:
        found["sequence_parallel"] = True
    if spec.layout.recompute == "full":
        found |= {"checkpoint_activations": True, "checkpoint_num_layers": 1}
    return found


def _training(spec: RunSpec) -> dict[str, Any]:
    training, optimizer = spec.training, spec.optimizer
    params = {"lr": optimizer.learning_rate, "betas": list(optimizer.betas), "eps": optimizer.epsilon}
    decay_steps = optimizer.decay_steps or training.steps
    found: dict[str, Any] = {
        "optimizer": {"type": "Adam", "params": params},
        "min_lr": optimizer.min_learning_rate,
        "lr_decay_style": optimizer.decay,
        "lr_decay_iters": decay_steps,
        # A fraction of the decay steps.
        "warmup": optimizer.warmup_steps / decay_steps,
        "weight_decay": optimizer.weight_decay,
        "gradient_clipping": optimizer.clip,
        "train_iters": training.steps,
        "seed": training.seed,
    }
    if training.precision == "bfloat16":
        short = {"float32": "fp32", "bfloat16": "bf16"}
        found |= {"precision": "bfloat16", "bf16": {"enabled": True}}
        found["data_types"] = {"grad_accum_dtype": short[training.gradient_dtype]}
    elif training.precision == "float16":
        found |= {"precision": "fp16", "fp16": {"enabled": True, "loss_scale": 0}}
    return found


def _zero(spec: RunSpec, sharding: str) -> dict[str, Any]:
    return {
        "zero_optimization": {
            "stage": STAGES[sharding],
            "overlap_comm": True,
            "reduce_scatter": True,
            "contiguous_gradients": True,
        }
    }


TARGET = Target("gpt-neox", "GPT-NeoX ea7aefd", export)
