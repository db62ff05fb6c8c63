"""The checkpoints of a training loop: where it starts, when it saves, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.checkpoint.checkpointer import Checkpointer, Written
from frontrunner.parallelism.runtime.checkpoint.progress import Progress
from frontrunner.parallelism.runtime.checkpoint.restore import resume, start_from
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.step import Notes, Write
from frontrunner.parallelism.runtime.trainer import Trainer
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.endings import TrainingFailed


class Saving:
    """Saves runs of the native engine. Other engines are for comparison only and are not saved."""

    def __init__(self, spec: RunSpec, run_dir: Path, trainer: RankTrainer, write: Write) -> None:
        self.spec = spec
        self.run_dir = run_dir
        self.write = write
        self.trainer = trainer if isinstance(trainer, Trainer) else None
        self.checkpointer = Checkpointer(spec, run_dir, self.trainer) if self.trainer else None

    def begin(self, warn: Callable[[str], None]) -> Progress:
        """Where the run starts: at its newest checkpoint, or at step 0. Collective."""
        if self.trainer is None or self.checkpointer is None:
            return Progress()
        progress = resume(self.trainer, self.run_dir, warn)
        if progress is not None:
            self.checkpointer.last_step = progress.step
            return progress
        if self.spec.checkpoint.start_from is not None:
            start_from(self.trainer, Path(self.spec.checkpoint.start_from))
        return Progress()

    def due_by_time(self) -> bool:
        return self.checkpointer is not None and self.checkpointer.due_by_time()

    def after_step(self, progress: Progress, notes: Notes, last: bool) -> None:
        """Save if one is due: by steps, by the clock, before a stop, or at the end. Collective.

        Raises Corrupted instead of saving state that is.
        """
        checkpointer = self.checkpointer
        if checkpointer is None:
            return
        self._say(checkpointer.poll())
        at_end = last and self.spec.checkpoint.at_end
        if notes.stop or notes.save or at_end or checkpointer.due_by_steps(progress.step):
            if self.trainer is not None:
                self.trainer.verifier.before_saving(progress.step)
            self.write("saving", step=progress.step)
            self._say(checkpointer.save(progress))
        if notes.stop or at_end:
            ended = checkpointer.finish()
            self._say(ended)
            if checkpointer.last_step != progress.step:
                why = ended[-1].error if ended else "unknown"
                when = "at the end" if at_end else "when the run stopped"
                raise TrainingFailed(
                    f"the checkpoint could not be written {when}, after step {progress.step}: {why}; "
                    f"{self.last_good()}"
                )

    def end(self) -> None:
        """Wait until everything that was started is on disk."""
        if self.checkpointer is not None:
            self._say(self.checkpointer.finish())
            self.checkpointer.close()

    def last_good(self) -> str:
        """The last checkpoint, for messages."""
        step = self.checkpointer.last_step if self.checkpointer else None
        if step is None:
            return "there is no checkpoint"
        return f"the last good checkpoint is {files.path_of(self.run_dir, step)}"

    def _say(self, ended: list[Written]) -> None:
        for written in ended:
            if written.error is None:
                self.write(
                    "checkpoint",
                    step=written.step,
                    path=str(files.path_of(self.run_dir, written.step)),
                    write_s=written.write_s,
                    stalled_s=written.stalled_s,
                )
            else:
                self.write(
                    "warning",
                    about="checkpoint",
                    step=written.step,
                    message=f"the checkpoint of step {written.step} was not written: {written.error}; "
                    f"training continues; {self.last_good()}",
                )
