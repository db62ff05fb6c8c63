"""Megatron-LM's arguments (megatron/training/arguments.py of core_v0.16.1 and d98e8a64)."""

from __future__ import annotations

import shlex

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import padding_notes, refuse
from frontrunner.launcher.exporters.megatron_experts import check_experts, expert_arguments
from frontrunner.launcher.exporters.megatron_model import (
    COMBINATIONS,
    Arguments,
    model_arguments,
    precision_arguments,
    training_arguments,
)
from frontrunner.launcher.exporters.target import (
    Exported,
    Refusals,
    Target,
    check_key_values,
    check_schedule,
    check_scheme,
    check_wires,
)
from frontrunner.parallelism.layout import Layout


def arguments(spec: RunSpec, layout: Layout) -> Arguments:
    """All arguments in order. Raises SpecError for anything that Megatron-LM does not support."""
    refusals = Refusals("Megatron-LM")
    sharding = check_scheme(refusals, spec, layout, ("ddp", "zero1", "zero2", "zero3"))
    check_wires(refusals, spec, layout)
    check_key_values(refusals, spec)
    check_schedule(refusals, spec, ("cosine", "linear", "constant"))
    refusals.unless(
        sharding not in ("zero2", "zero3") or layout.pipeline == 1,
        "layout.pipeline",
        layout.pipeline,
        "its FSDP (sharded weights or gradients) does not work with pipeline stages here",
        "use preset zero1, or pipeline 1",
    )
    refuse(refusals, spec.model, COMBINATIONS)
    check_experts(refusals, spec, sharding)
    refusals.check()
    return model_arguments(spec) | expert_arguments(spec) | _parallel(spec, sharding) | _training(spec)


def export(spec: RunSpec, layout: Layout) -> Exported:
    lines = [
        name if value is True else f"{name} {shlex.quote(str(value))}"
        for name, value in arguments(spec, layout).items()
    ]
    notes = ["data: replace --mock-data with --data-path and a tokenizer"]
    if layout.pipeline > 1 or layout.tensor > 1 or layout.expert > 1:
        notes.append("order of ranks: tensor, data, pipeline (Megatron-LM's default, tp-cp-ep-dp-pp)")
    notes += padding_notes(spec.model)
    return Exported(" \\\n  ".join(["pretrain_gpt.py", *lines]), tuple(notes))


def _parallel(spec: RunSpec, sharding: str) -> Arguments:
    layout = spec.layout
    found: Arguments = {
        "--tensor-model-parallel-size": layout.tensor,
        "--pipeline-model-parallel-size": layout.pipeline,
        "--micro-batch-size": layout.micro_batch_size,
        "--global-batch-size": spec.training.global_batch_size,
    }
    if layout.sequence_parallel:
        found["--sequence-parallel"] = True
    if layout.virtual_stages > 1:
        found["--num-virtual-stages-per-pipeline-rank"] = layout.virtual_stages
    if layout.recompute != "none":
        found["--recompute-granularity"] = layout.recompute
    if layout.recompute == "full":
        found |= {"--recompute-method": "uniform", "--recompute-num-layers": 1}
    overlap: Arguments = {"--overlap-grad-reduce": True, "--overlap-param-gather": True}
    if sharding == "zero1":
        found |= {"--use-distributed-optimizer": True} | overlap
    if sharding in ("zero2", "zero3"):
        cut = "optim_grads" if sharding == "zero2" else "optim_grads_params"
        found |= {"--use-distributed-optimizer": True, "--use-megatron-fsdp": True}
        found |= {"--data-parallel-sharding-strategy": cut, "--ckpt-format": "fsdp_dtensor"}
        found |= {"--no-gradient-accumulation-fusion": True} | overlap
    return found


def _training(spec: RunSpec) -> Arguments:
    data: Arguments = {"--mock-data": True, "--tokenizer-type": "NullTokenizer"}
    found = training_arguments(spec) | data | precision_arguments(spec)
    if spec.training.gradient_dtype == "bfloat16":
        found["--grad-reduce-in-bf16"] = True
    return found


TARGET = Target("megatron", "Megatron-LM core_v0.16.1 and d98e8a64", export)
