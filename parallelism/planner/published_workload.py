"""The workload and layout that the planner estimates for a published run.

A row without its full layout is skipped with the reason. Nothing is guessed except the vocabulary, which
accounts for little of the work.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frontrunner.configs.schema import MachineSpec, ModelSpec
from frontrunner.parallelism.planner.candidates import PRECISION_BYTES, RECOMPUTE, Candidates, Workload
from frontrunner.parallelism.planner.engine_profile import (
    FSDP2,
    GPT_NEOX_ZERO1,
    MEGATRON_DEEPSPEED_BF16,
    MEGATRON_DEEPSPEED_FP16_ZERO1,
    MEGATRON_DISTRIBUTED_OPTIMIZER,
    EngineProfile,
)
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from frontrunner.parallelism.planner.published import PublishedRun

#: Vocabulary of rows that do not give one: GPT-2's, padded like GPT-NeoX does.
USUAL_VOCABULARY = 50304


class Unusable(Exception):
    """Why a row cannot be predicted."""


def model_of(row: PublishedRun) -> ModelSpec:
    """The row's model. Raises Unusable if its shape is not given."""
    shape = row.model
    if not (shape.layers and shape.hidden and shape.heads and shape.ffn):
        raise Unusable("the model's shape is not published")
    if shape.gated is None:
        raise Unusable("whether its MLP is gated is not published")
    odd = not shape.head_dim and shape.hidden % shape.heads
    if odd or shape.heads % (shape.kv_heads or shape.heads):
        raise Unusable(
            f"its heads do not divide evenly: hidden {shape.hidden}, {shape.heads} heads, "
            f"{shape.kv_heads or shape.heads} key heads"
        )
    gated = shape.gated
    vocabulary = shape.vocab or USUAL_VOCABULARY
    return ModelSpec(
        name=row.id,
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads or shape.heads,
        ffn_hidden_size=shape.ffn,
        vocab_size=vocabulary,
        max_position_embeddings=row.seq_len or 2048,
        head_dim=shape.head_dim or shape.hidden // shape.heads,
        position_embedding=shape.positions or ("rotary" if gated else "learned"),
        activation="swiglu" if gated else "gelu_tanh",
        normalization="rmsnorm" if gated else "layernorm",
        linear_bias=not gated,
        tie_embeddings=not gated if shape.tied is None else shape.tied,
        sources={},
    )


def profile_of(row: PublishedRun) -> EngineProfile:
    """The profile of the row's engine, by name and ZeRO stage. Raises Unusable for unknown engines."""
    zero, software = str(row.zero or ""), row.software
    rules: list[tuple[bool, EngineProfile]] = [
        ("FSDP2" in zero, FSDP2),
        ("Megatron-DeepSpeed" in software or "DeepSpeed 0" in software, _megatron_deepspeed(row)),
        ("NeoX" in software and zero.startswith("1"), GPT_NEOX_ZERO1),
        ("Megatron-LM" in software and "distributed optimizer" in zero, MEGATRON_DISTRIBUTED_OPTIMIZER),
    ]
    for applies, profile in rules:
        if applies:
            return profile
    raise Unusable("its engine is unknown to the planner")


def _megatron_deepspeed(row: PublishedRun) -> EngineProfile:
    return MEGATRON_DEEPSPEED_BF16 if row.precision == "bf16" else MEGATRON_DEEPSPEED_FP16_ZERO1


def _profile(row: PublishedRun) -> EngineProfile:
    """The profile of the row's engine, adjusted by what the row itself says."""
    profile = replace(profile_of(row), fused_attention=bool(row.flash_attention))
    if row.attention_backward:
        profile = replace(profile, attention_backward=row.attention_backward)
    kept = row.memory_mib.bytes_per_parameter if row.memory_mib else None
    return replace(profile, kept=(kept.weights, kept.gradients, kept.optimizer)) if kept else profile


def _check_layout(row: PublishedRun, model: ModelSpec) -> None:
    """The row's layout. Raises Unusable if it is incomplete or impossible."""
    keys = ("seq_len", "tp", "pp", "mbs", "gbs", "activation_checkpointing", "flash_attention")
    given = {key: getattr(row, key) for key in keys} | {"gcds": row.devices}
    missing = [key for key, value in given.items() if value is None]
    if missing:
        raise Unusable(f"its layout is incomplete: the source does not give {', '.join(missing)}")
    tensor, pipeline, micro, devices = row.tp or 1, row.pp or 1, row.mbs or 1, row.devices or 1
    if devices % (tensor * pipeline):
        raise Unusable(f"gcds {devices} is not a multiple of tp {tensor} x pp {pipeline}")
    data = devices // (tensor * pipeline)
    if row.dp and row.dp != data:
        raise Unusable(f"dp {row.dp} is not gcds {devices} / (tp {tensor} x pp {pipeline}) = {data}")
    if (row.gbs or 0) % (data * micro):
        raise Unusable(f"gbs {row.gbs} is not a multiple of dp {data} x mbs {micro}")
    if model.num_heads % tensor or pipeline * (row.vpp or 1) > model.num_layers:
        raise Unusable(
            f"tp {tensor} and pp {pipeline} do not cut {model.num_heads} heads and {model.num_layers} layers"
        )
    if row.sharded and data % row.sharded:
        raise Unusable(f"sharded {row.sharded} does not divide dp {data}")
    if row.sharded and profile_of(row).name != FSDP2.name:
        raise Unusable("only FSDP cuts everything over some of the ranks")
    words = str(row.activation_checkpointing).split()
    if not words or words[0] not in RECOMPUTE:
        raise Unusable(
            f"activation_checkpointing {row.activation_checkpointing!r} is not one of {', '.join(RECOMPUTE)}"
        )


def prepare(row: PublishedRun, machine: MachineSpec) -> tuple[Workload, Candidates]:
    """What the planner needs from a row. Raises Unusable with the reason if the source lacks any of it."""
    model = model_of(row)
    _check_layout(row, model)
    profile = _profile(row)
    devices = row.devices
    tensor, pipeline, micro = (np.array([float(value or 0)]) for value in (row.tp, row.pp, row.mbs))
    data = (devices or 0) / tensor / pipeline
    accumulation = (row.gbs or 0) / (data * micro)
    checkpointing = str(row.activation_checkpointing).split()[0]
    fully = profile.name == FSDP2.name
    one, all_ranks = np.ones(1), data
    shards = one * row.sharded if row.sharded else data
    candidates = Candidates(
        tensor=tensor,
        sequence_parallel=one * bool(row.sp),
        pipeline=pipeline,
        virtual_stages=one * (row.vpp or 1),
        data=data,
        micro_batch_size=micro,
        grad_accum_steps=accumulation,
        recompute=one * RECOMPUTE.index(checkpointing),
        weights=shards if fully else one,
        gradients=shards if fully else all_ranks if profile.whole_gradients else one,
        optimizer=shards if fully else all_ranks,
        secondary=shards if fully else one,
        weight_wire=one * 2,
        gradient_wire=one * (profile.reduced_bytes or 2),
        network_wire=one * (profile.reduced_bytes or 2),
        error_feedback=0 * one,
        expert=one,
        flat_dispatch=0 * one,
        int8_dispatch=0 * one,
    )
    workload = Workload(
        model=model,
        machine=machine,
        software=machine.software[row.software_year],
        seq_len=row.seq_len or 0,
        compute_bytes=PRECISION_BYTES["bfloat16"],
        gradient_bytes=4,
        profile=profile,
    )
    return workload, candidates


def published_tokens_per_s(row: PublishedRun, model: ModelSpec) -> float:
    """Tokens/s per device: from the step time, as published, or from FLOP/s by the row's convention."""
    if row.step_time_s and row.gbs and row.seq_len and row.devices:
        return row.gbs * row.seq_len / row.step_time_s / row.devices
    if row.tokens_per_s_per_gcd:
        return row.tokens_per_s_per_gcd
    if not row.tflops_per_gcd or not row.tflops_convention or not row.seq_len:
        raise Unusable("no speed is published")
    if row.tflops_convention == "model":
        return row.tflops_per_gcd * 1e12 / model_flops_per_token(model, row.seq_len)
    if row.tflops_convention.startswith("hfu_x4"):
        return row.tflops_per_gcd * 1e12 / hardware_flops_per_token(model, row.seq_len, "full")
    raise Unusable("the convention of its FLOP/s (model or hardware) is unknown")
