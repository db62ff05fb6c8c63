"""Published runs: the rows of a file, and the workload and layout that the planner estimates for each.

A row without its full layout is skipped with the reason. Nothing is guessed except the vocabulary, which
accounts for little of the work.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from frontrunner.configs import foreign
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.configs.schema import MachineSpec, ModelSpec
from frontrunner.configs.types import NonNegativeFloat, PositiveFloat, PositiveInt
from frontrunner.configs.yaml_tree import LARGEST_FILE
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

#: Vocabulary of rows that do not give one: GPT-2's, padded like GPT-NeoX does.
USUAL_VOCABULARY = 50304


#: Keys of a row that are only for human readers.
UNUSED = ("gpu", "model_tflops_per_gcd")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)


class PublishedModel(_Row):
    """The shape of a published model; None if the source does not give it."""

    layers: PositiveInt | None
    hidden: PositiveInt | None
    heads: PositiveInt | None
    kv_heads: PositiveInt | None
    vocab: PositiveInt | None
    ffn: PositiveInt | None


class BytesPerParameter(_Row):
    """What an engine keeps per parameter before the data-parallel ranks divide it, and why."""

    weights: NonNegativeFloat
    gradients: NonNegativeFloat
    optimizer: NonNegativeFloat
    reason: str


class LoggedMemory(_Row):
    """MiB [allocated, max allocated, reserved] after a step, by pipeline stage."""

    per_stage_allocated_maxalloc_reserved: dict[
        Annotated[str, StringConstraints(pattern=r"^stage\d+$")],
        Annotated[list[PositiveFloat | None], Field(min_length=2, max_length=3)],
    ] = Field(default_factory=dict)
    bytes_per_parameter: BytesPerParameter | None = None


class PublishedRun(_Row):
    """One published run. Every key is required; None means that the source does not give it."""

    id: str
    source_url: str
    machine: str
    model: PublishedModel
    seq_len: PositiveInt | None
    tp: PositiveInt | None
    pp: PositiveInt | None
    dp: PositiveInt | None
    sp: bool | None
    mbs: PositiveInt | None
    gbs: PositiveInt | None
    zero: str | int | None
    activation_checkpointing: str | None
    flash_attention: bool | None
    precision: str | None
    gcds: PositiveInt | None
    tflops_per_gcd: PositiveFloat | None
    tflops_convention: str | None
    tokens_per_s_per_gcd: PositiveFloat | None
    step_time_s: PositiveFloat | None
    memory_mib: LoggedMemory | None
    software: str
    vpp: PositiveInt | None = None
    attention_backward: PositiveFloat | None = None
    confidence: str = "verified"
    usable_for: str = "speed"
    notes: str = ""

    def unknown_keys(self) -> list[str]:
        """A warning for each unknown key."""
        known = [*type(self).model_fields, *UNUSED]
        found = []
        for key in sorted(set(self.model_extra or {}) - set(known)):
            near = difflib.get_close_matches(key, known, 1)
            found.append(f"{self.id}: {key} is unknown" + (f"; did you mean {near[0]}?" if near else ""))
        return found

    @property
    def devices(self) -> int | None:
        """As published, or derived from the layout."""
        if self.gcds or not (self.tp and self.pp and self.dp):
            return self.gcds
        return self.tp * self.pp * self.dp

    @property
    def software_year(self) -> Literal["2023", "2025"]:
        """ROCm 6 and later counts as software of 2025."""
        version = re.search(r"ROCm (\d+)", self.software)
        old = int(version.group(1)) < 6 if version else "2023" in self.software
        return "2023" if old else "2025"


class Unusable(Exception):
    """Why a row cannot be predicted."""


def read(path: Path) -> list[PublishedRun]:
    """Read the rows of a file. Raises SpecError with row and key if one is missing or wrong."""
    if other := foreign.instead(path, "rows", str(path)):
        raise SpecError([other])
    try:
        rows = yaml.load(read_plain(path, LARGEST_FILE).decode("utf-8-sig"), yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SpecError([Violation("", str(path), f"cannot be read: {reason}", "give a rows file")]) from None
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        mark = getattr(error, "problem_mark", None)
        where = None if mark is None else mark.line + 1
        fix = "check indentation, colons and quotes"
        raise SpecError([Violation("", None, f"is not YAML: {reason}", fix, str(path), where)]) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(
            [
                Violation(
                    "",
                    str(path),
                    "must be a list of rows, each with its keys",
                    "write `- id: NAME` and its other keys under it",
                )
            ]
        )
    found = [_row(path, index, row) for index, row in enumerate(rows)]
    names = [row.id for row in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not found:
        what = f"has duplicate ids: {', '.join(twice)}" if twice else "holds no rows"
        fix = "give each row a unique id" if twice else "give a rows file"
        raise SpecError([Violation("", str(path), what, fix)])
    return found


def _row(path: Path, index: int, row: dict[str, Any]) -> PublishedRun:
    try:
        return PublishedRun.model_validate(row)
    except ValidationError as error:
        name = row.get("id", f"row {index + 1}")
        raise SpecError(
            [
                Violation(
                    f"{name}.{'.'.join(str(part) for part in found['loc'])}",
                    None if found["type"] == "missing" else found["input"],
                    "is missing" if found["type"] == "missing" else _said(found["msg"]),
                    "write null where the source does not give it"
                    if found["type"] == "missing"
                    else "correct the value",
                    str(path),
                )
                for found in error.errors()
            ]
        ) from None


def _said(message: str) -> str:
    """pydantic's message in a user's words."""
    text = re.sub("^(Input|String|List) should", "must", message)
    return re.sub(r"a valid dictionary or (instance|object) .*", "a mapping of keys", text)


def model_of(row: PublishedRun) -> ModelSpec:
    """The row's model. Raises Unusable if its shape is not given."""
    shape = row.model
    if not (shape.layers and shape.hidden and shape.heads and shape.ffn):
        raise Unusable("the model's shape is not published")
    if shape.hidden % shape.heads or shape.heads % (shape.kv_heads or shape.heads):
        raise Unusable(
            f"its heads do not divide evenly: hidden {shape.hidden}, {shape.heads} heads, "
            f"{shape.kv_heads or shape.heads} key heads"
        )
    llama = "llama" in row.id or shape.ffn != 4 * shape.hidden
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
        position_embedding="rotary" if llama or "ALiBi" in row.notes or "lumi-megds" in row.id else "learned",
        activation="swiglu" if llama else "gelu_tanh",
        normalization="rmsnorm" if llama else "layernorm",
        linear_bias=not llama,
        tie_embeddings=not llama,
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
    candidates = Candidates(
        tensor=tensor,
        sequence_parallel=one * bool(row.sp),
        pipeline=pipeline,
        virtual_stages=one * (row.vpp or 1),
        data=data,
        micro_batch_size=micro,
        grad_accum_steps=accumulation,
        recompute=one * RECOMPUTE.index(checkpointing),
        weights=all_ranks if fully else one,
        gradients=all_ranks if fully or profile.whole_gradients else one,
        optimizer=all_ranks,
        secondary=all_ranks if fully else one,
        weight_wire=one * 2,
        gradient_wire=one * (profile.reduced_bytes or 2),
        network_wire=one * (profile.reduced_bytes or 2),
        error_feedback=0 * one,
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
