"""Looks for accesses that no wait orders, with torch's CUDA sanitizer, in one step of the native engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.engines import make_trainer
from frontrunner.parallelism.runtime.first_day.figures import arrive, joined, publish
from frontrunner.parallelism.runtime.streams import races_raise

NO_STREAMS = "no device streams on CPU"


def measure(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Take a step and watch a second one; collective. The sanitizer raises at the first race.

    It sees torch's operations, not Triton's kernels, which write what our own streams read.
    """
    if select_device(spec.machine.device.kind, rendezvous.local_rank).type == "cpu":
        publish(run_dir, rendezvous.rank, {"not_applicable": NO_STREAMS})
        return
    with joined(spec, rendezvous) as (groups, device):
        arrive(run_dir, rendezvous.rank, "a step without the sanitizer")
        trainer = make_trainer(spec, groups, device)
        dataset = open_dataset(spec, split="train")
        trainer.step(0, dataset)
        arrive(run_dir, rendezvous.rank, "a step under the sanitizer")
        with races_raise():
            trainer.step(1, dataset)
            trainer.settle()
            trainer.streams.synchronize()
        publish(run_dir, rendezvous.rank, {"device": str(device), "races": 0})
