"""A run's checkpoints on one rank: when one is due, writing in the background, and restoring."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.fingerprint import fingerprint
from frontrunner.parallelism.planner.checkpoints import interval_s, write_s
from frontrunner.parallelism.runtime.checkpoint.pieces import Piece, model_pieces
from frontrunner.parallelism.runtime.checkpoint.plans import PIECES, PieceSavePlanner
from frontrunner.parallelism.runtime.checkpoint.progress import Progress
from frontrunner.parallelism.runtime.checkpoint.rank_state import rank_pieces, same_ranks
from frontrunner.parallelism.runtime.checkpoint.storage import RankFileWriter
from frontrunner.parallelism.runtime.trainer import Trainer
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.checkpoints import File, Manifest


@dataclass(frozen=True)
class Written:
    """The outcome of one checkpoint: ``error`` if it was not written. Seconds on this rank."""

    step: int
    write_s: float
    stalled_s: float
    error: str | None = None


@dataclass
class _Writing:
    step: int
    stalled_s: float
    future: Future[float] = field(default_factory=Future)


class Checkpointer:
    """Saves what :mod:`pieces` and :mod:`rank_state` name; every rank calls every method at the same step."""

    def __init__(self, spec: RunSpec, run_dir: Path, trainer: Trainer) -> None:
        self.spec = spec
        self.run_dir = run_dir
        self.trainer = trainer
        self.rank = trainer.groups.rank
        # A separate group on the CPU, because another thread uses it during training.
        self.group = dist.new_group(backend="gloo")
        self.planner = PieceSavePlanner()
        self.last_step: int | None = None  # with a complete checkpoint
        self.corpus = fingerprint(spec) if self.rank == 0 else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: _Writing | None = None
        self._saved_at_s = time.monotonic()
        self._cost_s: float | None = None

    def due_by_time(self) -> bool:
        """Whether one is due on this rank's clock; rank 0's clock decides."""
        every = self.spec.checkpoint.every_minutes
        if every is None:
            return False
        limit_s = self._automatic_s() if every == "auto" else 60 * every
        return time.monotonic() - self._saved_at_s >= limit_s

    def due_by_steps(self, step: int) -> bool:
        every = self.spec.checkpoint.every_steps
        return every is not None and step % every == 0

    def save(self, progress: Progress) -> list[Written]:
        """Start writing a checkpoint. Return the outcome of the previous one once the state may change."""
        begin = time.perf_counter()
        ended = self.finish()
        self.trainer.engine.gatherer.settle_masters()
        pieces = model_pieces(self.trainer.optimizer, saving=True) + rank_pieces(self.trainer)
        # The next step changes the rows of the shards.
        staged = [Piece(*piece[:3], self.trainer.streams.to_host(piece.values)) for piece in pieces]
        manifest = self._manifest_of(progress)
        writing = _Writing(progress.step, 0.0)
        writing.future = self._pool.submit(self._write, progress.step, staged, manifest)
        self._writing = writing
        self._saved_at_s = time.monotonic()
        if not self.spec.checkpoint.background:
            ended += self.finish()
        writing.stalled_s = time.perf_counter() - begin
        return ended

    def poll(self) -> list[Written]:
        """The outcome of a checkpoint that has finished since the last call."""
        return self.finish() if self._writing is not None and self._writing.future.done() else []

    def finish(self) -> list[Written]:
        """Wait until nothing is being written."""
        if self._writing is None:
            return []
        writing, self._writing = self._writing, None
        while not wait([writing.future], timeout=1.0).done:
            self.trainer.transport.progress_s = time.monotonic()  # a slow disk does not count as a hang
        try:
            self._cost_s = writing.future.result()
        except (Exception, CheckpointException) as error:  # whatever it was, training can continue
            return [Written(writing.step, 0.0, writing.stalled_s, _reason(error))]
        self.last_step = writing.step
        return [Written(writing.step, self._cost_s, writing.stalled_s)]

    def close(self) -> None:
        self._pool.shutdown()

    def _write(self, step: int, pieces: list[Piece], manifest: Any) -> float:
        """Finish writing, in the background; return the seconds that it took."""
        begin = time.perf_counter()
        path = files.path_of(self.run_dir, step)
        writer = RankFileWriter(path, self.rank, manifest)
        try:
            state_dict_saver.save(
                {PIECES: pieces}, storage_writer=writer, planner=self.planner, process_group=self.group
            )
        except BaseException:
            if self.rank == 0:
                shutil.rmtree(writer.folder, ignore_errors=True)
            raise
        if self.rank == 0:
            with suppress(OSError):
                files.prune(self.run_dir, self.spec.checkpoint.keep, self.spec.checkpoint.keep_every)
        return time.perf_counter() - begin

    def _manifest_of(self, progress: Progress) -> Any:
        optimizer, spec = self.trainer.optimizer, self.spec
        state = {
            "samples": progress.samples,
            "updates": optimizer.updates,
            "loss_scale": optimizer.loss_scale.value,
            "good_steps": optimizer.loss_scale.good_steps,
            "first_validation_loss": progress.first_validation_loss,
            "bad_steps": progress.bad_steps,
            "ranks": same_ranks(self.trainer),
            "corpus": self.corpus,
        }

        def manifest(written: list[File]) -> Manifest:
            return Manifest(progress.step, spec.model_dump(mode="json"), state, written, self.planner.tensors)

        return manifest

    def _automatic_s(self) -> float:
        """Young's interval for the measured cost of the last checkpoint, at first for the predicted cost."""
        model, machine, nodes = self.spec.model, self.spec.machine, self.spec.nodes
        cost_s = write_s(model, machine, nodes) if self._cost_s is None else self._cost_s
        return interval_s(cost_s, machine, nodes)


def _reason(error: BaseException) -> str:
    """Why a checkpoint could not be written, in one line that is the same on every rank."""
    if not isinstance(error, CheckpointException):
        return _words(error)
    rank, (cause, _) = min(error.failures.items())
    others = f" and {len(error.failures) - 1} others" if len(error.failures) > 1 else ""
    return f"rank {rank}{others}: {_words(cause)}"


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"
