"""Whole runs in a folder, as ranks of a test take them, and what they left."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime import step
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.train import train
from frontrunner.parallelism.runtime.trainer import Trainer
from frontrunner.run_folder import endings
from frontrunner.run_folder.endings import Stopped, TrainingFailed
from frontrunner.run_folder.files import CHECKPOINTS

Record = dict[str, Any]


def train_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path) -> str:
    """One rank of a run; how it ended."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        train(spec, run_dir, rendezvous)
    except Stopped as stopped:
        return f"stopped after {stopped.step}"
    except TrainingFailed as failed:
        return f"failed: {failed}"
    return "done"


def stopped_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, rank: int, after: int) -> str:
    """One rank of a run in which ``rank`` is asked to stop while it takes the step after ``after``."""
    taken = 0

    def asked() -> bool:
        nonlocal taken
        taken += 1
        return rendezvous.rank == rank and taken > after

    endings.asked = asked
    return train_run(rendezvous, spec, run_dir)


def spoilt_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, first: int, what: str) -> str:
    """One rank of a run in which one rank's loss or gradient is not finite from step ``first`` (from 0)
    on."""
    run, number = Trainer.run, -1

    def spoilt(self: Trainer, batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        nonlocal number
        number += 1
        if number >= first and rendezvous.rank == 1 and what == "gradient":
            collect = self.engine.reducer.collect

            def bad(unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
                collect(unit, key, torch.full_like(gradient, float("inf")))

            self.engine.reducer.collect = bad  # type: ignore[method-assign]
        loss = run(self, batches, forward_only)
        return loss + float("nan") if number >= first and rendezvous.rank == 1 and what == "loss" else loss

    Trainer.run = spoilt  # type: ignore[method-assign]
    return train_run(rendezvous, spec, run_dir)


def records(run_dir: Path, kind: str | None = None) -> list[Record]:
    found = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    return [record for record in found if kind in (None, record["kind"])]


def losses(run_dir: Path) -> dict[int, float]:
    """The loss of each step, by the last record of it."""
    return {record["step"]: record["loss"] for record in records(run_dir, "step")}


def vanishing_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, after: int) -> str:
    """One rank of a run whose checkpoints are removed by somebody after a step."""
    add = step.StepReport.add

    def removing(self: step.StepReport, record: Record) -> None:
        add(self, record)
        if rendezvous.rank == 0 and record["step"] == after:
            shutil.rmtree(run_dir / CHECKPOINTS)

    step.StepReport.add = removing  # type: ignore[method-assign]
    return train_run(rendezvous, spec, run_dir)


def slow_run(rendezvous: Rendezvous, spec: RunSpec, run_dir: Path, rank: int) -> str:
    """One rank of a run in which ``rank`` works longer than the others, on a slow machine too."""
    run = Trainer.run

    def slow(self: Trainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        begin = time.monotonic()
        loss = run(self, *args, **kwargs)
        if rendezvous.rank == rank:
            time.sleep(0.1 + 4 * (time.monotonic() - begin))
        return loss

    Trainer.run = slow  # type: ignore[method-assign]
    return train_run(rendezvous, spec, run_dir)
