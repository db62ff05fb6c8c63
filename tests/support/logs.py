"""Logs as trainers write them, short and made up here, and records of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from support.specs import run_spec
from support.tree import ROOT

#: Real logs, beside the checkout where somebody has put them.
REAL = ROOT.parent / "shared" / "data" / "logs"
REAL_REASON = f"the published logs are not in {REAL}"

MEGATRON: dict[str, Any] = {
    "bf16": True,
    "checkpoint_activations": True,
    "data_parallel_size": 2,
    "ffn_hidden_size": 1024,
    "global_batch_size": 16,
    "hidden_size": 256,
    "max_position_embeddings": 128,
    "micro_batch_size": 2,
    "num_attention_heads": 4,
    "num_layers": 4,
    "params_dtype": "torch.bfloat16",
    "pipeline_model_parallel_size": 2,
    "seq_length": 128,
    "tensor_model_parallel_size": 2,
    "world_size": 8,
    "zero_stage": 1,
}
NEOX: dict[str, Any] = {
    "checkpoint_activations": True,
    "global_num_gpus": 8,
    "hidden_size": 256,
    "max_position_embeddings": 128,
    "model_parallel_size": 2,
    "num_attention_heads": 4,
    "num_layers": 4,
    "padded_vocab_size": 512,
    "pipe_parallel_size": 2,
    "precision": "fp16",
    "seq_length": 128,
    "train_batch_size": 16,
    "train_micro_batch_size_per_gpu": 2,
    "zero_optimization": "{'stage': 1, 'allgather_partitions': True}",
}


def argument_lines(arguments: Mapping[str, Any], suffix: str = "") -> list[str]:
    """The table that Megatron prints; GPT-NeoX adds to each where it comes from (``suffix``)."""
    table = [f"  {name} {'.' * max(3, 48 - len(name))} {value}{suffix}" for name, value in arguments.items()]
    return [f"{'-' * 24} arguments {'-' * 24}", *table, f"{'-' * 20} end of arguments {'-' * 21}"]


def deepspeed_step(step: int, seconds: float, **fields: Any) -> str:
    """A step of Megatron-DeepSpeed."""
    values = {
        "loss": "5.012345E+00",
        "batch": 16,
        "scale": "1.0",
        "skipped": 0,
        "samples": 16 / seconds,
        "tflops": 1.5,
    }
    values |= fields
    return (
        f" iteration {step:8d}/     100 | consumed samples: {step * 16:12d} | consumed tokens: "
        f"{step * 2048:12d} | "
        f"elapsed time per iteration (s): {seconds:.2f} | learning rate: 6.000E-05 | global batch size: "
        f"{values['batch']:5d} | lm loss: {values['loss']} | loss scale: {values['scale']} | grad norm: "
        f"1.234 | "
        f"num zeros: 0.0 | number of skipped iterations: {values['skipped']:3d} | number of nan iterations: "
        f"  0 | "
        f"samples per second: {values['samples']:.3f} | TFLOPs: {values['tflops']:.2f} |"
    )


def megatron_step(step: int, seconds: float) -> str:
    """A step of Megatron-LM."""
    return (
        f" [2026-01-02 03:04:{step % 60:02d}] iteration {step:8d}/     100 | consumed samples: "
        f"{step * 16:12d} | elapsed "
        f"time per iteration (ms): {seconds * 1000:.1f} | throughput per GPU (TFLOP/s/GPU): 91.0 | learning "
        f"rate: "
        f"1.000000E-05 | global batch size:    16 | lm loss: {9 - step / 100:.6E} | loss scale: 1.0 | grad "
        f"norm: 3.210 | "
        "number of skipped iterations:   0 | number of nan iterations:   0 |"
    )


def primus_step(step: int, seconds: float) -> str:
    """A step of Primus's own trainer: two values a field, and no bar at the end."""
    return (
        f"[2026-01-02 03:04:{step % 60:02d}] iteration {step:8d}/     100 | consumed samples: "
        f"{step * 16:12d} | elapsed time per iteration (ms): {seconds * 1000:.1f}/{seconds * 1000:.1f} | "
        f"compute per GPU "
        f"(TFLOP/s/GPU): 91.0 (avg 90.5) | tokens/s/GPU inst/harmonic mean: 128.0/127.9 | learning rate: "
        f"1.000000E-05 | global batch size:    16 | lm loss: {9 - step / 100:.6E} | loss scale: 1.0 | "
        "grad norm: 3.210 | number of skipped iterations:   0 | number of nan iterations:   0"
    )


def neox_step(step: int, seconds: float) -> str:
    """A step of GPT-NeoX."""
    return (
        f" samples/sec: {16 / seconds:.3f} | iteration {step:8d}/     100 | elapsed time per iteration (ms): "
        f"{seconds * 1000:.1f} | learning rate: 1.000E-05 | approx flops per GPU: 51.2TFLOPS | lm_loss: "
        f"{9 - step / 100:.6E} | loss scale: 4096.0 | number of skipped iterations:   0 | number of nan "
        f"iterations:   0 |"
    )


def memory_line(rank: int, mib: float) -> str:
    return (
        f"[Rank {rank}] (after 1 iterations) memory (MB) | allocated: {mib} | max allocated: {mib + 100} | "
        f"reserved: {mib + 200} | max reserved: {mib + 200}"
    )


def message_line(operation: str, milliseconds: float, size: str) -> str:
    return (
        f"[2026-01-02 03:04:05,678] [INFO] [logging.py:75:log_dist] [Rank 0] rank=0 | comm op: {operation} | "
        f"time (ms): {milliseconds:.2f} | msg size: {size} | algbw (Gbps): 1.00  | busbw (Gbps): 1.00 "
    )


def deepspeed_log(
    times: Sequence[float],
    arguments: Mapping[str, Any] | None = None,
    extra: Iterable[str] = (),
    **fields: Any,
) -> str:
    """A whole log of Megatron-DeepSpeed; ``extra`` lines come before the steps."""
    lines = [
        *argument_lines(MEGATRON | dict(arguments or {})),
        "setting number of micro-batches to constant 4",
        " > padded vocab (size: 500) with 12 dummy tokens (new size: 512)",
        "DeepSpeed general environment info:",
        "torch hip version ................ 5.4.22801-aaa1e3d8",
        *extra,
        *(deepspeed_step(step, seconds, **fields) for step, seconds in enumerate(times, 1)),
    ]
    return "\n".join(lines) + "\n"


def header(spec: RunSpec, **fields: Any) -> dict[str, Any]:
    layout = Layout.from_spec(spec).describe()
    return {"kind": "header", "spec": spec.model_dump(mode="json"), "layout": layout} | fields


def step_record(step: int, seconds: float, **fields: Any) -> dict[str, Any]:
    return {
        "kind": "step",
        "step": step,
        "loss": 5.0 - step / 100,
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "step_time_s": seconds,
        "forward_backward_s": 0.8 * seconds,
        "communication_exposed_s": 0.1 * seconds,
        "optimizer_s": 0.2 * seconds,
        "tokens_per_s_per_device": None,
        "skipped": False,
        "peak_memory_bytes": 1000,
        "bytes_sent": {"package": 1.0, "node": 2.0, "network": 3.0},
    } | fields


def write_run(folder: Path, times: Sequence[float], spec: RunSpec | None = None, **fields: Any) -> Path:
    """A run folder of ours with these step times."""
    spec = spec or run_spec()
    folder.mkdir(parents=True, exist_ok=True)
    records = [header(spec), *(step_record(step, seconds, **fields) for step, seconds in enumerate(times, 1))]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def line(record: Mapping[str, Any]) -> str:
    return json.dumps(record) + "\n"
