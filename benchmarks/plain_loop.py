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

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.batches import micro_batches
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.first_day.plain import PlainGPT, stepper
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.streams import streams_of
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


def plain_step(spec: RunSpec, dataset: Any, device: torch.device) -> Callable[[int], float]:
    take = stepper(spec, PlainGPT(spec.model).to(device), device)

    def step(number: int) -> float:
        size = spec.training.global_batch_size
        return take(micro_batches(dataset, spec, number * size, size, 0, streams_of(device)))

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
