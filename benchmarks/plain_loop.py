"""Compares tokens/s of frontrunner on one rank with a hand-written PyTorch loop of the same model.

Both train a GPT of 8 layers, hidden size 512, in float32 on the CPU (or a GPU if there is one), in turn:
a few steps of one, a few of the other, and so on. A machine whose speed drifts does not disturb the ratio
of a pair.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.trainer import Trainer

RUN = """
name: plain-loop
model: {extends: gpt-tiny, num_layers: 8, hidden_size: 512, num_heads: 8, vocab_size: 8192}
machine: {extends: workstation, packages_per_node: 1, devices_per_package: 1}
nodes: 1
layout: {micro_batch_size: 4, sharding: {preset: ddp}}
training: {seq_len: 256, global_batch_size: 4, steps: 100000, precision: float32}
data: synthetic
"""


class Block(nn.Module):
    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.proj = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        b, s, h = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, s, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.proj(
            F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, s, h)
        )
        out: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return out


class PlainGPT(nn.Module):
    def __init__(self, spec: RunSpec) -> None:
        super().__init__()
        model = spec.model
        self.words = nn.Embedding(model.padded_vocab_size, model.hidden_size)
        self.positions = nn.Embedding(model.max_position_embeddings, model.hidden_size)
        self.blocks = nn.Sequential(
            *(Block(model.hidden_size, model.num_heads) for _ in range(model.num_layers))
        )
        self.norm = nn.LayerNorm(model.hidden_size)
        for weight in (self.words.weight, self.positions.weight):
            nn.init.normal_(weight, std=model.init_std)

    def forward(self, tokens: Tensor) -> Tensor:
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        x = self.words(inputs) + self.positions(torch.arange(inputs.shape[1], device=tokens.device))
        logits = self.norm(self.blocks(x)) @ self.words.weight.T
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def plain_step(spec: RunSpec, dataset: Any, device: torch.device) -> Callable[[int], float]:
    model = PlainGPT(spec).to(device)
    settings = spec.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )

    def step(number: int) -> float:
        size = spec.training.global_batch_size
        tokens = torch.stack([torch.from_numpy(dataset[number * size + i]) for i in range(size)]).to(device)
        loss = model(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


def measure(step: Callable[[int], float], first: int, count: int) -> float:
    """Seconds a step."""
    start = time.perf_counter()
    for number in range(first, first + count):
        step(number)
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3, help="steps of each in a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(RUN)
        spec = load_run(str(path)).spec
    device = select_device(spec.machine.device.kind, 0)
    dataset = open_dataset(spec, split="train")
    trainer = Trainer(
        spec, initialize(Layout.from_spec(spec), Rendezvous(0, 1, 0, "127.0.0.1", 0, "here"), device), device
    )
    plain = plain_step(spec, dataset, device)

    def ours(number: int) -> float:
        return trainer.step(number, dataset)[0]

    print(f"losses of the first step: frontrunner {ours(0):.4f}, plain {plain(0):.4f}")
    tokens = spec.training.global_batch_size * spec.training.seq_len
    pairs = []
    for index in range(args.rounds):
        first = 1 + index * args.steps
        pairs.append((measure(ours, first, args.steps), measure(plain, first, args.steps)))
        ours_s, plain_s = pairs[-1]
        print(
            f"frontrunner {tokens / ours_s:7.0f} tokens/s, plain {tokens / plain_s:7.0f} tokens/s, "
            f"ratio {plain_s / ours_s:.3f}"
        )
    ratios = sorted(plain_s / ours_s for ours_s, plain_s in pairs)
    print(
        f"ratio frontrunner / plain: median {statistics.median(ratios):.3f} "
        f"(min {ratios[0]:.3f}, max {ratios[-1]:.3f})"
    )


if __name__ == "__main__":
    main()
