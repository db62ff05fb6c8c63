"""What checkpoints cost: step times with and without them, and writes compared with plain torch.save.

    python benchmarks/checkpoint_cost.py [--rounds 5] [--steps 20] [--folder runs/checkpoint-cost]

One rank on one core trains a GPT of 29 M parameters and writes a checkpoint (354 MB) in the middle of each
round of steps: never, in the background, or while training waits, in turn. Another core is free, like the
cores of a node whose devices train. The write throughput is compared with torch.save of the same tensors,
flushed to disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous, free_port
from frontrunner.parallelism.runtime.checkpoint.checkpointer import Checkpointer
from frontrunner.parallelism.runtime.checkpoint.progress import Progress
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.trainer import Trainer

RUN = """
name: checkpoint-cost
model: {extends: gpt-tiny, num_layers: 8, hidden_size: 512, num_heads: 8, vocab_size: 8192}
machine: {extends: workstation, packages_per_node: 1, devices_per_package: 1}
nodes: 1
layout: {sharding: {preset: ddp}}
training: {seq_len: 256, global_batch_size: 1, steps: 100000, precision: float32}
data: synthetic
checkpoint: {keep: 1}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of each kind in a round")
    parser.add_argument("--folder", type=Path, default=Path("runs/checkpoint-cost"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    spec = _spec()
    device = select_device(spec.machine.device.kind, 0)
    place = Rendezvous(0, 1, 0, "127.0.0.1", free_port(), "here")
    trainer = Trainer(spec, initialize(Layout.from_spec(spec), place, device), device)
    compare_steps(trainer, args.folder, args.rounds, args.steps)
    compare_writes(trainer, args.folder, args.rounds)


def compare_steps(trainer: Trainer, folder: Path, rounds: int, steps: int) -> None:
    """Seconds a step of each kind in turn, and their ratios to the step without checkpoints."""
    dataset = open_dataset(trainer.spec, split="train")
    checkpointers = {
        "in the background": _checkpointer(trainer, folder / "background", background=True),
        "while training waits": _checkpointer(trainer, folder / "waiting", background=False),
    }
    number = 0

    def measure(checkpointer: Checkpointer | None) -> float:
        nonlocal number
        start = time.perf_counter()
        for index in range(steps):
            trainer.step(number, dataset)
            number += 1
            if checkpointer is not None and index == steps // 4:
                checkpointer.save(Progress(number, 0))
        if checkpointer is not None:
            checkpointer.finish()
        return (time.perf_counter() - start) / steps

    measure(None)
    ratios: dict[str, list[float]] = {name: [] for name in checkpointers}
    for _ in range(rounds):
        plain_s = measure(None)
        for name, checkpointer in checkpointers.items():
            ratios[name].append(measure(checkpointer) / plain_s)
    for name, found in ratios.items():
        often = f"every {steps} steps ({steps * plain_s:.1f} s)"
        print(f"step time with a checkpoint {often}, written {name}: {_spread(found)} of that without")


def compare_writes(trainer: Trainer, folder: Path, rounds: int) -> None:
    """Bytes a second of a checkpoint, checksummed and on disk, and of torch.save of the same tensors."""
    checkpointer = _checkpointer(trainer, folder / "write", background=False)
    optimizer = trainer.optimizer
    moments = [tensor for pair in optimizer.moments for tensor in pair]
    tensors = [unit.master for unit in trainer.engine.units] + moments
    size = sum(tensor.nbytes for tensor in tensors)

    def plain() -> None:
        with (folder / "plain.pt").open("wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())

    ratios, ours = [], []
    for number in range(rounds):
        plain_s = _seconds(plain)
        ours_s = _seconds(lambda number=number: checkpointer.save(Progress(number, 0)))  # type: ignore[misc]
        ratios.append(plain_s / ours_s)
        ours.append(size / ours_s)
    speed = f"{statistics.median(ours) / 1e6:.0f} MB/s"
    print(f"write of {size / 1e6:.0f} MB: {speed}, {_spread(ratios)} of torch.save")


def _checkpointer(trainer: Trainer, folder: Path, background: bool) -> Checkpointer:
    checkpoint = trainer.spec.checkpoint.model_copy(update={"background": background})
    return Checkpointer(trainer.spec.model_copy(update={"checkpoint": checkpoint}), folder, trainer)


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"


def _spec() -> RunSpec:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(RUN)
        return load_run(str(path)).spec


if __name__ == "__main__":
    main()
