"""Where a run's kernels sit below the device's ceilings: FLOPs per byte, and the planner's rate.

Intensities count each operand once, as if caches were perfect. Rates are the planner's (measured matrix
products and attention, a share of memory bandwidth): see ``planner/compute.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frontrunner.parallelism.planner import compute
from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload
from frontrunner.parallelism.planner.memory import stage_parameters

Figures = dict[str, Any]

#: FLOPs of AdamW for one parameter: two moments, their corrections, the root, the decay and the update.
ADAMW_FLOPS = 12


def roofline(workload: Workload, c: Candidates) -> Figures | None:
    """Ceilings and points of the single candidate in ``c``; None if the machine's rates are unknown, or for a
    model with experts, whose layers and products are not alike."""
    device, software = workload.machine.device, workload.software
    bandwidth = device.memory_bandwidth_bytes_per_s
    if software is None or bandwidth is None or workload.model.experts is not None:
        return None
    peaks = {str(key): value for key, value in device.peak_flops_per_s.items()}
    points = [_products(workload, c), _attention(workload, c), _optimizer(workload, c)]
    return {
        "peak_flops_per_s": peaks.get("float32" if workload.compute_bytes == 4 else "bfloat16"),
        "memory_bandwidth_bytes_per_s": bandwidth,
        "best_product_flops_per_s": max(point.flops_per_s for point in software.gemm),
        "points": points,
    }


def _products(workload: Workload, c: Candidates) -> Figures:
    """The four matrix products of a layer's forward pass."""
    assert workload.software
    model, m = workload.model, workload.tokens(c)
    heads = model.num_heads * model.head_dim
    qkv, gated = heads + 2 * model.num_kv_heads * model.head_dim, 2 if model.activation == "swiglu" else 1
    hidden = model.hidden_size + 0 * m
    inner = model.ffn_hidden_size / c.tensor
    shapes = [
        (m, qkv / c.tensor, hidden),
        (m, hidden, heads / c.tensor),
        (m, gated * inner, hidden),
        (m, hidden, inner),
    ]
    return _point(
        "matrix products of a layer",
        np.sum([2 * a * b * k for a, b, k in shapes], axis=0),
        np.sum([(a * k + k * b + a * b) * workload.compute_bytes for a, b, k in shapes], axis=0),
        np.sum([compute.product(workload.software, a, b, k) for a, b, k in shapes], axis=0),
    )


def _attention(workload: Workload, c: Candidates) -> Figures:
    """The attention core, forward: the causal half if fused; with scores in memory if not."""
    assert workload.software
    model, s, tokens = workload.model, workload.seq_len, workload.tokens(c)
    width = model.num_heads * model.head_dim / c.tensor
    keys = 2 * np.maximum(model.num_kv_heads / c.tensor, 1) * model.head_dim
    moved = tokens * (2 * width + keys) * workload.compute_bytes
    flops = 2 * tokens * s * width
    if not workload.profile.fused_attention:
        flops = 2 * flops
        passes = 6 if workload.profile.dropout else 4
        moved = moved + passes * tokens * s * model.num_heads / c.tensor * workload.compute_bytes
    seconds = compute.layer(workload, c, workload.software).attention_forward
    return _point("attention", flops, moved, seconds)


def _optimizer(workload: Workload, c: Candidates) -> Figures:
    assert workload.software
    parameters = stage_parameters(workload, c, 0 * c.pipeline).numel / c.optimizer
    seconds = compute.optimizer(workload, parameters, workload.software)
    moved = parameters * (2 * workload.gradient_bytes + 24 + workload.compute_bytes)
    return _point("optimizer", ADAMW_FLOPS * parameters, moved, seconds)


def _point(name: str, flops: Array, moved: Array, seconds: Array) -> Figures:
    return {
        "kernel": name,
        "flops_per_byte": float((flops / moved)[0]),
        "flops_per_s": float((flops / seconds)[0]),
    }
