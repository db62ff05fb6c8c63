"""Seconds of computing on a device: matrix products by shape, attention, and memory-bound operators.

A product of [m, k] and [k, n] runs at the rate of square matrices of size equal to the harmonic mean of m, n
and k. The reason: the cost of tile edges is proportional to the sum of 1/m, 1/n and 1/k, and 1 / rate of the
measured table is linear in 1 / size to within 1 %. The rate is interpolated and extrapolated this way, but
stays constant above the largest measured size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frontrunner.configs.software import SoftwareSpec
from frontrunner.parallelism.planner import expert_hops
from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload


@dataclass(frozen=True)
class Layer:
    """Seconds [n] of one layer and micro-batch: matrix products, attention core, and the rest."""

    forward: Array
    attention_forward: Array
    backward: Array


def product(software: SoftwareSpec, m: Array, n: Array, k: Array) -> Array:
    """Seconds of a matrix product."""
    inverse = np.array([1 / point.size for point in software.gemm])
    cost = np.array([1 / point.flops_per_s for point in software.gemm])
    mean = np.maximum((1 / m + 1 / n + 1 / k) / 3, inverse[-1])
    order = np.argsort(inverse)
    slope = (cost[0] - cost[1]) / (inverse[0] - inverse[1])
    small = cost[0] + slope * (mean - inverse[0])
    per_flop = np.where(mean > inverse[0], small, np.interp(mean, inverse[order], cost[order]))
    seconds: Array = 2 * m * n * k * per_flop / software.gemm_factor
    return seconds


def layer(workload: Workload, c: Candidates, software: SoftwareSpec, sparse: bool = False) -> Layer:
    """Forward and backward of one transformer layer, without recomputation; ``sparse``: with experts."""
    model, speed = workload.model, workload.profile.speed
    tokens, t = workload.tokens(c), c.tensor
    heads = model.num_heads * model.head_dim
    qkv = heads + 2 * model.num_kv_heads * model.head_dim
    gated = 2 if model.activation == "swiglu" else 1
    hidden = np.full(len(c), float(model.hidden_size))
    products = product(software, tokens, qkv / t, hidden) + product(software, tokens, hidden, heads / t)
    if sparse:
        products = products + _experts(workload, c, software)
    else:
        products = products + product(software, tokens, gated * model.ffn_hidden_size / t, hidden)
        products = products + product(software, tokens, hidden, model.ffn_hidden_size / t)
    products = products / speed
    core_forward, core_backward = _attention(workload, c, software)
    passes = _operators(workload, c, software, sparse)
    return Layer(
        forward=products + core_forward + passes,
        attention_forward=core_forward,
        backward=2 * products + core_backward + 2 * passes,
    )


def _experts(workload: Workload, c: Candidates, software: SoftwareSpec) -> Array:
    """Matrix products of the router, of shared experts, and of the busiest rank's experts one by one."""
    model, experts, tokens = workload.model, workload.model.experts, workload.tokens(c)
    assert experts
    gated = 2 if model.activation == "swiglu" else 1
    hidden, ffn = np.full(len(c), float(model.hidden_size)), experts.ffn_hidden_size / c.tensor
    found = product(software, tokens, np.full(len(c), float(experts.num_experts)), hidden)
    if experts.shared_experts:
        shared = experts.shared_experts * ffn
        found = found + product(software, tokens, gated * shared, hidden)
        found = found + product(software, tokens, hidden, shared)
    own = experts.num_experts / c.expert
    rows = expert_hops.rows(workload, c) / own
    found = found + own * product(software, rows, gated * ffn, hidden)
    return found + own * product(software, rows, hidden, ffn)


def head(workload: Workload, c: Candidates, software: SoftwareSpec) -> Array:
    """The output layer and the loss, forward and backward."""
    model, tokens = workload.model, workload.tokens(c)
    width = model.padded_vocab_size / c.tensor
    hidden = np.full(len(c), float(model.hidden_size))
    # Logits in the run's precision and float32, their maximum, sum, softmax and gradient.
    passes = tokens * width * (6 * workload.compute_bytes + 16)
    return 3 * product(software, tokens, width, hidden) / workload.profile.speed + passes / _bandwidth(
        workload, software
    )


def optimizer(workload: Workload, parameters: Array, software: SoftwareSpec) -> Array:
    """Seconds of AdamW over ``parameters``. It reads the gradient, master and two moments, and writes all
    but the gradient. Add twice the gradient for its norm, and one write of the weights."""
    return (
        parameters
        * (2 * workload.gradient_bytes + 24 + workload.compute_bytes)
        / _bandwidth(workload, software)
    )


def _bandwidth(workload: Workload, software: SoftwareSpec) -> float:
    peak = workload.machine.device.memory_bandwidth_bytes_per_s
    assert peak, "a machine with measured software needs a memory bandwidth"
    return peak * software.memory_efficiency


def _attention(workload: Workload, c: Candidates, software: SoftwareSpec) -> tuple[Array, Array]:
    """Forward and backward seconds of the attention core."""
    model, s = workload.model, float(workload.seq_len)
    tokens = workload.tokens(c)
    if workload.profile.fused_attention:
        flops = 2 * tokens * s * model.num_heads * model.head_dim / c.tensor  # the causal half
        forward = flops / software.attention_flops_per_s
        return forward, workload.profile.attention_backward * forward
    # head_dim is one size of both products, as inside flash attention.
    products = 4 * tokens * s * model.num_heads * model.head_dim / c.tensor / software.attention_flops_per_s
    scores = tokens * s * model.num_heads / c.tensor * workload.compute_bytes
    # Scores in the forward: the product writes, softmax and dropout read and write, the product reads.
    passes = (6 if workload.profile.dropout else 4) * scores / _bandwidth(workload, software)
    return products + passes, 2 * products + 2 * passes


def _operators(workload: Workload, c: Candidates, software: SoftwareSpec, sparse: bool) -> Array:
    """Forward seconds of norms, residuals, activation and copies, which are memory-bound.

    Fused kernels: two norms (read, write), two bias-dropout-residuals (two reads, a write), the activation
    (reads, write), the reordering of queries, keys and values and norms of queries and keys, if any (read,
    write). In eager PyTorch each norm, rotation and gate takes several kernels: twice the traffic. With
    experts each row is brought to its expert and back (two reads and writes), and the router's logits become
    scores of which the largest are chosen (two reads, a write, in float32).
    """
    model, width = workload.model, workload.compute_bytes
    gated = 2 if model.activation == "swiglu" else 1
    cut = np.where(c.sequence_parallel > 0, c.tensor, 1.0)
    outside = (2 * 2 + 2 * 3) * model.hidden_size * width
    qkv = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    experts, ffn = workload.model.experts, model.ffn_hidden_size
    if sparse and experts:
        ffn = experts.shared_experts * experts.ffn_hidden_size
    inside = ((gated + 1) * ffn + 2 * qkv) * width
    if model.qk_norm != "none":
        inside += 2 * (model.num_heads + model.num_kv_heads) * model.head_dim * width
    times = 1 if workload.profile.fused_operators else 2
    moved = workload.tokens(c) * (outside / cut + inside / c.tensor) * times
    if sparse and experts:
        each = ((gated + 1) * experts.ffn_hidden_size / c.tensor + 4 * model.hidden_size) * width
        rows = expert_hops.rows(workload, c) * each
        moved = moved + (rows + workload.tokens(c) * 3 * 4 * experts.num_experts) * times
    return moved / _bandwidth(workload, software)
