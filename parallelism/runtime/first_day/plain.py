"""A plain PyTorch loop of the run's model: what the engines are held against.

The model is written by hand with torch's own modules, and torch's DistributedDataParallel sums gradients.
Weights are float32 and computing is autocast, as most loops have it. No state is sharded and nothing is
recomputed. Dropout, norms of queries and keys and scaled rotations are left out: see :func:`lacks`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.batches import micro_batches
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import DTYPES, peak_memory_bytes
from frontrunner.parallelism.runtime.first_day.figures import arrive, joined, publish
from frontrunner.parallelism.runtime.streams import streams_of

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "swiglu": lambda x: F.silu(x.chunk(2, -1)[0]) * x.chunk(2, -1)[1],
}


def measure(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Take the run's steps; collective. ``spec.layout`` is data-parallel without sharding."""
    if missing := lacks(spec.model):
        why = f"the plain loop has no {' and no '.join(missing)}"
        publish(run_dir, rendezvous.rank, {"not_applicable": why})
        return
    with joined(spec, rendezvous) as (groups, device):
        torch.manual_seed(spec.training.seed)
        model: nn.Module = PlainGPT(spec.model).to(device)
        if rendezvous.world_size > 1:
            model = DistributedDataParallel(model)
        step = stepper(spec, model, device)
        streams, dataset, size = streams_of(device), open_dataset(spec, split="train"), spec.training
        seconds, losses = [], []
        for number in range(spec.training.steps):
            arrive(run_dir, rendezvous.rank, f"step {number + 1}")
            batches = micro_batches(
                dataset,
                spec,
                number * size.global_batch_size,
                size.global_batch_size,
                groups.coordinates.data,
                streams,
            )
            dist.barrier()
            streams.synchronize()
            begin = time.perf_counter()
            losses.append(step(batches))
            streams.synchronize()
            seconds.append(time.perf_counter() - begin)
        step_s = statistics.median(seconds[1:])
        found = {
            "device": str(device),
            "step_time_s": step_s,
            "tokens_per_s_per_device": size.global_batch_size * size.seq_len / step_s / spec.world_size,
            "peak_memory_bytes": peak_memory_bytes(device),
            "losses": losses,
        }
        publish(run_dir, rendezvous.rank, found)


def lacks(model: ModelSpec) -> list[str]:
    """What the model has and the plain loop has not."""
    found = {
        "dropout": model.hidden_dropout or model.attention_dropout,
        "norms of queries and keys": model.qk_norm != "none",
        "norms after attention and MLP": model.norm_position == "after",
        "parallel residuals": model.parallel_residual,
        "scaled rotations": model.rotary_scaling_factor,
        "experts": model.experts is not None,
    }
    return [name for name, has in found.items() if has]


def stepper(spec: RunSpec, model: nn.Module, device: torch.device) -> Callable[[list[Tensor]], float]:
    """A step over a rank's micro-batches [micro_batch_size, seq_len + 1]; returns its mean loss."""
    settings, dtype = spec.optimizer, DTYPES[spec.training.precision]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )

    def step(batches: list[Tensor]) -> float:
        total = torch.zeros((), device=device)
        for tokens in batches:
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                loss = model(tokens) / len(batches)
            loss.backward()
            total += loss.detach()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()

    return step


class PlainGPT(nn.Module):
    """The whole model; its forward gives the mean loss of tokens [b, s + 1]."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        self.model = model
        hidden, rows = model.hidden_size, model.padded_vocab_size
        self.words = nn.Embedding(rows, hidden)
        learned = model.position_embedding == "learned"
        self.positions = nn.Embedding(model.max_position_embeddings, hidden) if learned else None
        self.blocks = nn.ModuleList(_Block(model) for _ in range(model.num_layers))
        self.norm = _norm(model)
        self.head = nn.Linear(hidden, rows, bias=False)
        if model.tie_embeddings:
            self.head.weight = self.words.weight
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=model.init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        places = torch.arange(inputs.shape[1], device=tokens.device)
        x, rotation = self.words(inputs), None
        if self.positions is not None:
            x = x + self.positions(places)
        else:
            rotation = _rotation(self.model, places)
        for block in self.blocks:
            x = block(x, rotation)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten())


class _Block(nn.Module):
    def __init__(self, model: ModelSpec) -> None:
        super().__init__()
        hidden, inner = model.hidden_size, model.ffn_hidden_size
        self.shape = (model.num_heads, model.num_kv_heads, model.num_kv_heads)
        self.size = model.head_dim
        self.norm1, self.norm2 = _norm(model), _norm(model)
        self.qkv = nn.Linear(hidden, sum(self.shape) * self.size, model.qkv_bias)
        self.proj = nn.Linear(model.num_heads * self.size, hidden, model.linear_bias)
        gated = 2 if model.activation == "swiglu" else 1
        self.up = nn.Linear(hidden, gated * inner, model.linear_bias)
        self.down = nn.Linear(inner, hidden, model.linear_bias)
        self.activation = _ACTIVATIONS[model.activation]

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (-1, self.size)).transpose(1, 2)
        query, key, value = heads.split(self.shape, dim=1)
        if rotation is not None:
            query, key = (_rotated(each, *rotation) for each in (query, key))
        grouped = self.shape[0] != self.shape[1]
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=grouped)
        x = x + self.proj(out.transpose(1, 2).flatten(2))
        result: Tensor = x + self.down(self.activation(self.up(self.norm2(x))))
        return result


def _norm(model: ModelSpec) -> nn.Module:
    kind: Any = nn.LayerNorm if model.normalization == "layernorm" else nn.RMSNorm
    norm: nn.Module = kind(model.hidden_size, eps=model.norm_epsilon)
    return norm


def _rotation(model: ModelSpec, places: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [s, rotated / 2]."""
    rotated = int(model.head_dim * model.rotary_fraction)
    steps = torch.arange(0, rotated, 2, device=places.device) / rotated
    angles = places[:, None] * model.rotary_base**-steps
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys [b, heads, s, head_dim], whose first dims are rotated in halves."""
    half = cos.shape[-1]
    first, second, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    turned = (first * cos - second * sin, second * cos + first * sin, rest)
    return torch.cat(turned, -1).to(x.dtype)
