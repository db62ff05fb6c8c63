"""torchtitan's configuration file (torchtitan/config/job_config.py of v0.2.2, the last one with a file)."""

from __future__ import annotations

import json
from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import padding_notes
from frontrunner.launcher.exporters.target import (
    Exported,
    Refusals,
    Target,
    check_dense,
    check_key_values,
    check_scheme,
    check_wires,
)
from frontrunner.launcher.exporters.torchtitan_model import flavor
from frontrunner.parallelism.layout import Layout


def config(spec: RunSpec, layout: Layout) -> dict[str, dict[str, Any]]:
    """The whole file by section. Raises SpecError for anything that torchtitan does not support."""
    refusals = Refusals("torchtitan")
    check_dense(refusals, spec)
    sharding = check_scheme(refusals, spec, layout, ("ddp", "zero2", "zero3", "hsdp"))
    check_wires(refusals, spec, layout)
    check_key_values(refusals, spec)
    name = flavor(refusals, spec.model)
    _check(refusals, spec, layout)
    _check_schedule(refusals, spec)
    refusals.check()
    shard = layout.weights if sharding in ("zero3", "hsdp") else layout.gradients
    return {
        "model": {"name": "llama3", "flavor": name},
        "parallelism": {
            "data_parallel_replicate_degree": layout.data // shard,
            "data_parallel_shard_degree": shard,
            "fsdp_reshard_after_forward": "never" if sharding == "zero2" else "always",
            "tensor_parallel_degree": layout.tensor,
            "pipeline_parallel_degree": layout.pipeline,
        }
        | _pipeline(spec),
        "activation_checkpoint": {"mode": spec.layout.recompute},
        "training": {
            "local_batch_size": spec.layout.micro_batch_size
            * (spec.grad_accum_steps if layout.pipeline > 1 else 1),
            "global_batch_size": spec.training.global_batch_size,
            "seq_len": spec.training.seq_len,
            "max_norm": spec.optimizer.clip,
            "steps": spec.training.steps,
            "mixed_precision_param": spec.training.precision,
            "mixed_precision_reduce": "float32",
        },
        "optimizer": {
            "name": "AdamW",
            "lr": spec.optimizer.learning_rate,
            "beta1": spec.optimizer.betas[0],
            "beta2": spec.optimizer.betas[1],
            "eps": spec.optimizer.epsilon,
            "weight_decay": spec.optimizer.weight_decay,
        },
        "lr_scheduler": _schedule(spec),
        "debug": {"seed": spec.training.seed},
    } | ({"compile": {"enable": True}} if spec.training.compile else {})


def export(spec: RunSpec, layout: Layout) -> Exported:
    sections = [
        "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())])
        for name, values in config(spec, layout).items()
    ]
    notes = (
        "data and tokenizer: set training.dataset and model.hf_assets_path",
        "gradients are reduced in float32, torchtitan's only choice",
        "initial weights are torchtitan's own (standard deviation 1 in the embedding), not model.init_std",
        *padding_notes(spec.model),
    )
    return Exported("\n\n".join(sections), notes)


def _check(refusals: Refusals, spec: RunSpec, layout: Layout) -> None:
    refusals.unless(
        spec.training.precision != "float16",
        "training.precision",
        "float16",
        "it trains in bfloat16 or float32",
        "use bfloat16",
    )
    refusals.unless(
        layout.tensor == 1 or spec.layout.sequence_parallel,
        "layout.sequence_parallel",
        False,
        "its tensor parallelism always includes sequence parallelism",
        "use true",
    )
    refusals.unless(
        spec.layout.recompute != "selective",
        "layout.recompute",
        "selective",
        "its selective mode recomputes every second product, not attention",
        "use none or full",
    )


def _check_schedule(refusals: Refusals, spec: RunSpec) -> None:
    own = spec.optimizer
    refusals.unless(
        own.decay_steps in (None, spec.training.steps),
        "optimizer.decay_steps",
        own.decay_steps,
        "its decay ends at the last step",
        f"use {spec.training.steps}, or remove it",
    )


def _pipeline(spec: RunSpec) -> dict[str, Any]:
    layout = spec.layout
    if layout.pipeline == 1:
        return {}
    found: dict[str, Any] = {
        "pipeline_parallel_schedule": "Interleaved1F1B" if layout.virtual_stages > 1 else "1F1B",
        "pipeline_parallel_microbatch_size": layout.micro_batch_size,
    }
    pieces = layout.pipeline * layout.virtual_stages
    found["pipeline_parallel_layers_per_stage"] = spec.model.num_layers // pieces
    # Its default counts the embedding and the output layer as one layer each.
    for end in ("first", "last"):
        found[f"pipeline_parallel_{end}_stage_less_layers"] = 0
    return found


def _schedule(spec: RunSpec) -> dict[str, Any]:
    own = spec.optimizer
    found: dict[str, Any] = {"warmup_steps": own.warmup_steps}
    if own.decay == "constant":
        return found | {"decay_ratio": 0.0}
    return found | {"decay_type": own.decay, "min_lr_factor": own.min_learning_rate / own.learning_rate}


TARGET = Target("torchtitan", "torchtitan v0.2.2", export, compiles=True)
