"""Optional consumers of records: TensorBoard event files and Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from frontrunner.launcher.errors import try_import
from frontrunner.run_folder.records import Record, Step, Validation


class TrackerName(StrEnum):
    TENSORBOARD = "tensorboard"
    WANDB = "wandb"


class Tracker(Protocol):
    def record(self, record: Record) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars under ``RUN_DIR/tensorboard``; ``tensorboard --logdir`` shows them."""

    def __init__(self, run_dir: Path) -> None:
        self._writer = try_import("tensorboard.summary", "tensorboard").Writer(str(run_dir / "tensorboard"))

    def record(self, record: Record) -> None:
        if record["kind"] == "step" or record["kind"] == "validation":
            for name, value in scalars(record):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run in the project ``frontrunner``; wandb's own variables apply (``WANDB_MODE=offline``)."""

    def __init__(self, run_dir: Path) -> None:
        self._wandb = try_import("wandb", "wandb")
        self._run_dir = run_dir
        self._run: Any = None

    def record(self, record: Record) -> None:
        if record["kind"] == "header":
            self._run = self._wandb.init(
                project="frontrunner", name=self._run_dir.name, dir=str(self._run_dir), config=record
            )
        elif self._run is not None and (record["kind"] == "step" or record["kind"] == "validation"):
            self._run.log(dict(scalars(record)), step=record["step"])

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def scalars(record: Step | Validation) -> Iterator[tuple[str, float]]:
    """The numbers of a step or validation record, as in ``train/loss`` or ``train/bytes_sent/node``."""
    group = "train" if record["kind"] == "step" else "validation"
    for name, value in record.items():
        if isinstance(value, dict):
            yield from ((f"{group}/{name}/{key}", item) for key, item in value.items() if item is not None)
        elif isinstance(value, int | float) and name != "step":
            yield f"{group}/{name}", value


def open_tracker(name: TrackerName, run_dir: Path) -> Tracker:
    """If the package is missing, raises RunFailed that names the extra to install."""
    makers: dict[TrackerName, Callable[[Path], Tracker]] = {
        TrackerName.TENSORBOARD: TensorBoard,
        TrackerName.WANDB: WeightsAndBiases,
    }
    return makers[name](run_dir)
