"""The figures of one run: the object of ``runs[]`` in ``frontrunner analyze --json``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from frontrunner.analysis import bootstrap, sanity
from frontrunner.analysis.importers.unsupported import Void
from frontrunner.analysis.machines import peak_flops_per_s
from frontrunner.analysis.run_log import RunLog, StageMemory
from frontrunner.analysis.steady import RULE
from frontrunner.configs.schema import MachineSpec, ModelSpec
from frontrunner.parallelism.planner.flops import (
    causal_model_flops_per_token,
    hardware_flops_per_token,
    model_flops_per_token,
    plain_gpt_flops_per_token,
)
from frontrunner.parallelism.planner.parameters import total_parameters

Figures = dict[str, Any]

_FLOPS = (
    "expected_flops_per_s_per_device",
    "model_flops_per_s_per_device",
    "hardware_flops_per_s_per_device",
    "mfu",
    "hfu",
)
#: Figures that a feature makes unknown, by what it voids.
_VOIDED: dict[Void, tuple[str, ...]] = {
    "model": ("model", *_FLOPS, "predicted"),
    "attention": (*_FLOPS, "predicted"),
    "plan": ("predicted",),
}
#: Names of conventions that trainers of one kind also have.
CAUSAL = "model, half of attention"
PLAIN_GPT = "hardware, of a plain GPT"
#: Where both conventions are within this share of what is printed, the usual one is named.
_BOTH_FIT = 0.01


def figures(run: RunLog, row: Figures, machine: MachineSpec | None, times: bootstrap.Array) -> Figures:
    """Every figure of a run except its prediction.

    ``row`` comes from :func:`steady.summarise`; ``times`` are the steady step times.
    """
    batch, seq_len = (
        int(value) if value else None
        for value in (row["global_batch_size"] or run.global_batch_size, row["seq_len"] or run.seq_len)
    )
    found = _identity(run, machine) | {
        "global_batch_size": batch,
        "steps": row["steps"],
        "last_step": row["last_step"],
        "planned_steps": run.planned_steps,
        "steady": {key: row[key] for key in ("steady", "warm_up", "outliers", "other_layout", "other_batch")}
        | {"rule": RULE},
        "step_time_s": row["step_time_s"],
        "step_time_p5_s": row["step_time_p5_s"],
        "step_time_p95_s": row["step_time_p95_s"],
        "step_time_interval_s": list(bootstrap.median_interval(times)) if len(times) > 1 else None,
        "first_loss": row["first_loss"],
        "last_loss": row["last_loss"],
        "validation": _validation(run),
        "lost_lines": run.lost_lines,
    }
    found["seq_len"] = seq_len
    found |= _speed(run, row, machine, batch, seq_len)
    found["not_known"] = not_known(run)
    found |= {key: None for key in found["not_known"] if key in found}
    found |= _memory(run, row, machine)
    for key, reason in run.not_printed.items():
        if found.get(key) is None:
            found["not_known"].setdefault(key, reason)
    found |= _communication(run, row)
    found["parts_s"] = _parts(row)
    odd = sanity.flags(run, found, row, machine)
    found["warnings"] = [sentence for _, sentence in odd]
    found["flags"] = sorted({kind for kind, _ in odd})
    found["corrected"] = _corrected(run, found)
    return found


def _validation(run: RunLog) -> list[Figures]:
    """Validation losses by step; of a step that was repeated, the last."""
    told = dict(run.facts.get("validation", ()))
    return [{"step": step, "loss": told[step]} for step in sorted(told)]


def _identity(run: RunLog, machine: MachineSpec | None) -> Figures:
    """What ran, and on what."""
    nodes = run.nodes or (
        -(-run.devices // machine.devices_per_node) if run.devices and machine and run.spec is None else None
    )
    return {
        "id": run.id,
        "path": run.path,
        "format": run.format,
        "machine": machine.name if machine else None,
        "machine_reason": run.machine_reason if machine and run.machine else None,
        "devices": run.devices,
        "nodes": nodes,
        "model": _model(run.model),
        "layout": run.layout,
        "precision": run.precision,
    }


def not_known(run: RunLog) -> dict[str, str]:
    """Figures that this run makes unknown, and why."""
    found: dict[str, str] = {}
    for each in run.unsupported:
        for key in _VOIDED[each.void]:
            found.setdefault(key, each.reason)
    return found


def _model(model: ModelSpec | None) -> Figures | None:
    if model is None:
        return None
    keys = (
        "name",
        "num_layers",
        "hidden_size",
        "num_heads",
        "num_kv_heads",
        "ffn_hidden_size",
        "padded_vocab_size",
    )
    return {key: getattr(model, key) for key in keys} | {"parameters": total_parameters(model)}


def _speed(
    run: RunLog, row: Figures, machine: MachineSpec | None, batch: int | None, seq_len: int | None
) -> Figures:
    """Tokens and FLOPs by our formula from the step time, next to what the log printed."""
    time, printed = row["step_time_s"], row["printed_flops_per_s"]
    tokens = batch * seq_len / time / run.devices if time and batch and seq_len and run.devices else None
    speed = tokens or row["tokens_per_s_per_device"]
    model_flops = hardware_flops = None
    if speed and run.model and seq_len:
        model_flops = speed * model_flops_per_token(run.model, seq_len)
        mode = run.layout.get("recompute")
        if mode in ("none", "selective", "full"):
            hardware_flops = speed * hardware_flops_per_token(run.model, seq_len, mode)
    convention, expected = run.flop_convention, hardware_flops
    if convention != "hardware":
        expected = model_flops
    if printed and expected and speed and run.model and seq_len:
        other, per_token = _other_count(run, run.model, seq_len)
        off = abs(printed - expected)
        if off > _BOTH_FIT * expected and abs(printed - speed * per_token) < off:
            convention, expected = other, speed * per_token
    peak = peak_flops_per_s(machine, run.precision)
    return {
        "tokens_per_s_per_device": speed,
        "tokens_per_s": speed * run.devices if speed and run.devices else None,
        "model_flops_per_s_per_device": model_flops,
        "hardware_flops_per_s_per_device": hardware_flops,
        "mfu": model_flops / peak if model_flops and peak else None,
        "hfu": hardware_flops / peak if hardware_flops and peak else None,
        "peak_flops_per_s_per_device": peak,
        "printed_flops_per_s_per_device": printed,
        "flop_convention": convention if printed else None,
        "printed_flop_convention": convention if printed else None,
        "expected_flops_per_s_per_device": expected if printed else None,
    }


def _other_count(run: RunLog, model: ModelSpec, seq_len: int) -> tuple[str, float]:
    """The other convention of the trainers that count as this run's does, and its FLOPs of a token."""
    if run.flop_convention == "hardware":
        passes = 3 if run.layout.get("recompute") == "none" else 4
        return PLAIN_GPT, plain_gpt_flops_per_token(model, seq_len, passes)
    return CAUSAL, causal_model_flops_per_token(model, seq_len)


def _memory(run: RunLog, row: Figures, machine: MachineSpec | None) -> Figures:
    stages = run.memory
    if not stages and row["peak_memory_bytes"]:
        stages = (StageMemory(0, None, row["peak_memory_bytes"], None),)
    return {
        "memory_bytes": max((stage.peak_bytes for stage in stages), default=None),
        "memory_capacity_bytes": machine.device.memory_bytes if machine else None,
        "memory_by_stage": [asdict(stage) for stage in stages] if run.memory else [],
    }


def _communication(run: RunLog, row: Figures) -> Figures:
    """Share of the step that a device waits for messages.

    For our runs this is the exposed part. For other logs it is the calls of one rank without receives, which
    mostly wait for the previous stage.
    """
    operations = [
        {
            "operation": each.name,
            "calls_per_step": each.calls,
            "bytes_per_step": each.bytes,
            "seconds_per_step": each.seconds,
        }
        for each in run.communication
    ]
    share, of = (
        row["communication_share"],
        "exposed, mean of ranks" if row["communication_share"] is not None else None,
    )
    if operations and row["step_time_s"]:
        told = sum(each.seconds for each in run.communication if each.name != "recv")
        share, of = told / row["step_time_s"], f"calls of rank {run.communication_rank} without recv"
    levels = {level: row[f"bytes_{level}"] for level in ("package", "node", "network")}
    return {
        "communication": {"share": share, "of": of, "rank": run.communication_rank, "operations": operations},
        "bytes_per_step": levels if any(value is not None for value in levels.values()) else None,
    }


def _parts(row: Figures) -> Figures:
    """Seconds of a step by part, if the log gives them."""
    total, exposed, optimizer = row["step_time_s"], row["communication_exposed_s"], row["optimizer_s"]
    if total is None or optimizer is None:
        return {}
    hidden = exposed or 0.0
    found = {"computing and bubble": max(0.0, total - optimizer - hidden), "optimizer": optimizer}
    return found | ({"communication not hidden": exposed} if exposed is not None else {})


def _corrected(run: RunLog, found: Figures) -> Figures | None:
    """The corrected speed if the engine ran fewer micro-batches than the log counts."""
    factor = sanity.engine_factor(run)
    if factor is None:
        return None
    keys = ("tokens_per_s_per_device", "model_flops_per_s_per_device", "hardware_flops_per_s_per_device")
    return {"factor": factor[0], "micro_batches": factor[1], "counted_micro_batches": factor[2]} | {
        key: found[key] * factor[0] if found[key] else None for key in keys
    }
