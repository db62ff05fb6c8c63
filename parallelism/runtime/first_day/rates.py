"""Rates of a device while all of its node are busy: matrix products, attention, copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import DTYPES
from frontrunner.parallelism.runtime.first_day.figures import arrive, joined, publish
from frontrunner.parallelism.runtime.probe import best_s, copy

#: Square matrices, for the machine file's table.
SQUARES = {"cuda": (512, 1024, 2048, 4096, 8192), "cpu": (32, 64, 128, 256)}
#: Sizes of a head besides the model's.
_HEADS = {"cuda": (64, 128), "cpu": ()}
#: Parts of the run's sequence length.
_PARTS = (4, 2, 1)


def measure(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Measure this rank's device beside those of all others; collective."""
    with joined(spec, rendezvous) as (_, device):
        dtype, rank = DTYPES[spec.training.precision], rendezvous.rank

        def product(m: int, n: int, k: int) -> float:
            arrive(run_dir, rank, f"a product of {m} x {k} and {k} x {n}")
            # Zeros or ones take less power than what is trained on, and devices then run faster.
            a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
            return 2 * m * n * k / best_s(lambda: a @ b, device, dist.barrier)

        found: dict[str, Any] = {"device": str(device), "dtype": spec.training.precision}
        found["squares"] = [
            {"size": size, "flops_per_s": product(size, size, size)} for size in SQUARES[device.type]
        ]
        found["products"] = [
            {"product": name, "m": m, "n": n, "k": k, "flops_per_s": product(m, n, k)}
            for name, m, n, k in products(spec)
        ]
        found["attention"] = []
        for head_dim in dict.fromkeys((spec.model.head_dim, *_HEADS[device.type])):
            for part in _PARTS:
                length = max(1, spec.training.seq_len // part)
                arrive(run_dir, rank, f"attention with heads of {head_dim} over {length} tokens")
                found["attention"].append(_attention(spec, head_dim, length, device, dtype))
        arrive(run_dir, rank, "a copy in memory")
        found["memory_bytes_per_s"] = copy(device)
        publish(run_dir, rank, found)


def products(spec: RunSpec) -> Iterator[tuple[str, int, int, int]]:
    """The products [m, k] x [k, n] of a layer and the output layer on a rank (as ``planner/compute.py``)."""
    model, t = spec.model, spec.layout.tensor
    tokens = spec.layout.micro_batch_size * spec.training.seq_len
    heads = model.num_heads * model.head_dim
    gated = 2 if model.activation == "swiglu" else 1
    yield "qkv", tokens, (heads + 2 * model.num_kv_heads * model.head_dim) // t, model.hidden_size
    yield "attention output", tokens, model.hidden_size, heads // t
    yield "mlp up", tokens, gated * model.ffn_hidden_size // t, model.hidden_size
    yield "mlp down", tokens, model.hidden_size, model.ffn_hidden_size // t
    yield "logits", tokens, model.padded_vocab_size // t, model.hidden_size


def _attention(
    spec: RunSpec, head_dim: int, length: int, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """Seconds of causal attention over one micro-batch, forward and backward; FLOPs count the causal half."""
    batch, heads = spec.layout.micro_batch_size, max(1, spec.model.num_heads // spec.layout.tensor)
    query, key, value = (
        torch.randn(batch, heads, length, head_dim, device=device).to(dtype).requires_grad_()
        for _ in range(3)
    )

    def forward() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)

    out = forward()
    upstream = torch.randn_like(out)
    forward_s = best_s(forward, device, dist.barrier)
    backward_s = best_s(
        lambda: torch.autograd.grad(out, (query, key, value), upstream, retain_graph=True),
        device,
        dist.barrier,
    )
    flops = 2 * batch * heads * length**2 * head_dim
    return {
        "head_dim": head_dim,
        "seq_len": length,
        "flops": flops,
        "forward_flops_per_s": flops / forward_s,
        "backward_of_forward": backward_s / forward_s,
    }
