"""Runs a sweep: starts trials while the budget lasts, and records their outcomes.

The controller may be killed at any moment. Its whole state is in the journal and in the trial folders. The
next controller resumes every open trial: it adopts running and finished ones, and starts those that were
created but never started.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.slurm import seconds
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.configs.yaml_tree import show_path
from frontrunner.launcher.sweeping import outcome
from frontrunner.launcher.sweeping.backends import Attempt, Backend
from frontrunner.launcher.sweeping.outcome import CRASH, NODE_FAILURE, REJECTION, Ended
from frontrunner.launcher.sweeping.samplers import Strategy
from frontrunner.launcher.sweeping.space import Point
from frontrunner.launcher.sweeping.store import EARLY_STOP, Store, Trial, best, repair
from frontrunner.run_folder import locks
from frontrunner.slurm.errors import SlurmFailed

TRIALS = "trials"
_STOPPED = "stopped"
_LONGEST_SILENCE_S = 600.0


@dataclass
class Controller:
    """One run of a sweep in ``folder``; ``say`` gets one line per event."""

    sweep: SweepDocument
    folder: Path
    points: Sequence[Point]
    strategy: Strategy
    backend: Backend
    store: Store
    say: Callable[[str], None]
    tick_s: float = 1.0
    silence_s: float = 10.0
    """Pauses before retrying a silent scheduler: doubled each time, at most ten minutes."""

    def run(self) -> None:
        """Run until the budget is used up or no point is left, and every trial is closed.

        Raises SlurmFailed if Slurm does not answer at the start. Later failures are retried indefinitely,
        because nobody may be there to restart the sweep.
        """
        for trial in self._open():
            self.say(f"trial {trial.number}: resumed")
        answered, pause_s = False, self.silence_s
        while True:
            try:
                self._look()
                more = self._begin()
            except SlurmFailed as error:
                if not answered:
                    raise
                self.say(f"{error}; next attempt in {pause_s:.0f} s")
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_SILENCE_S)
                continue
            answered, pause_s = True, self.silence_s
            if not more and not self._open():
                return
            time.sleep(self.tick_s)

    def attempt(self, trial: Trial, number: int | None = None) -> Attempt:
        """The newest attempt of a trial, or one of the earlier."""
        number = number or trial.attempt
        spec = self.points[trial.point].spec
        changes: dict[str, object] = {"name": f"{self.sweep.spec.name}-{trial.number:04d}"}
        if trial.avoid:
            avoided = ",".join(nodes for nodes in (spec.slurm.exclude, trial.avoid) if nodes)
            changes["slurm"] = spec.slurm.model_copy(update={"exclude": avoided})
        run_dir = self.folder.absolute() / TRIALS / f"{trial.number:04d}-{number}"
        return Attempt(run_dir, spec.model_copy(update=changes))

    def node_hours(self, trial: Trial) -> float:
        """Node-hours of all attempts so far."""
        attempts = [self.attempt(trial, number + 1) for number in range(trial.attempt)]
        held = sum(self.backend.used_s(attempt) for attempt in attempts)
        return held * self.points[trial.point].spec.nodes / 3600

    def _open(self) -> list[Trial]:
        return [trial for trial in self.store.trials() if trial.open]

    def _look(self) -> None:
        """Start new attempts, and close finished ones."""
        started = [trial for trial in self._open() if self.backend.start(self.attempt(trial))]
        self.backend.refresh([self.attempt(trial) for trial in started])
        for trial in started:
            self._look_at(trial)

    def _look_at(self, trial: Trial) -> None:
        attempt = self.attempt(trial)
        stopped = attempt.run_dir.with_name(f"{attempt.run_dir.name}.{_STOPPED}")
        ended = self.backend.ended(attempt)
        if ended is not None and not stopped.exists():
            self._end(trial, attempt, ended)
        elif stopped.exists() or self._is_hopeless(attempt):
            stopped.touch()  # written first, so that the next controller knows the reason
            self.backend.stop(attempt)
            self._close(trial, EARLY_STOP, outcome.so_far(attempt.run_dir, self.sweep.spec.objective))

    def _end(self, trial: Trial, attempt: Attempt, ended: Ended) -> None:
        failure = outcome.failure(attempt.run_dir, ended)
        value = outcome.objective(attempt.run_dir, self.sweep.spec.objective) if failure is None else None
        if failure is None and value is None:
            failure = CRASH  # it reports success but has recorded nothing
        if failure == NODE_FAILURE and trial.attempt <= self.sweep.spec.retries:
            self.say(f"trial {trial.number}: a node failed; retrying on other nodes")
            self.store.again(trial, ended.nodes)
            return
        self._close(trial, failure, value)

    def _close(self, trial: Trial, failure: str | None, value: float | None) -> None:
        load = float(self.strategy.predicted.load[trial.point])
        self.store.finish(trial, value, failure, self.node_hours(trial), load)
        shown = f"{value:.6g}" if value is not None else "nothing measured"
        if failure in (CRASH, REJECTION):
            shown += f" ({outcome.last_words(self.attempt(trial).run_dir)})"
        self.say(f"trial {trial.number}: {failure or 'complete'}, {shown}  {trial.values}")

    def _is_hopeless(self, attempt: Attempt) -> bool:
        """Whether its first steps are far worse than the best trial."""
        share, key = self.sweep.spec.early_stop, self.sweep.spec.objective
        leader = best(self.store.trials(), key)
        value = outcome.so_far(attempt.run_dir, key) if share and leader else None
        if value is None or leader is None or leader.objective is None:
            return False
        return value < share * leader.objective if OBJECTIVES[key] else share * value > leader.objective

    def _begin(self) -> bool:
        """Start as many trials as may run at once; returns whether more may follow."""
        while self._affordable():
            if len(self._open()) >= min(self.sweep.spec.budget.jobs, self.backend.most or 10**6):
                return True
            point = self.strategy.choose(self.store.trials())
            if point is None:
                return False
            expected = float(self.strategy.predicted.objective[point.number])
            trial = self.store.begin(point, expected if expected == expected else None)
            self.backend.start(self.attempt(trial))
            self.say(f"trial {trial.number}: started  {trial.values}")
        return False

    def _affordable(self) -> bool:
        budget, trials = self.sweep.spec.budget, self.store.trials()
        if len(trials) >= budget.trials:
            return False
        if budget.wall_time and trials and time.time() - self.store.started_s > seconds(budget.wall_time):
            return False
        if budget.node_hours is None:
            return True
        used = sum(self.node_hours(trial) if trial.open else trial.node_hours for trial in trials)
        return used < budget.node_hours


@contextmanager
def opened(folder: Path, sweep: SweepDocument) -> Iterator[Store]:
    """The sweep's folder and journal, locked for one controller."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        what, fix = "cannot be created: a file has this name", "choose another --folder"
        raise SpecError([Violation("--folder", show_path(folder), what, fix)]) from None
    with (folder / ".lock").open("a") as lock:
        if not locks.take(lock):
            fix = "wait for it, or see `frontrunner sweep status`"
            what = "another `frontrunner sweep run` is using this folder"
            raise SpecError([Violation("", None, what, fix, show_path(folder))])
        repair(folder)
        store = Store(folder, sweep, create=True)
        trials = folder / TRIALS
        if not store.trials() and trials.exists() and any(trials.iterdir()):
            # Their results would be mistaken for those of new trials with the same numbers.
            what, fix = "belong to a missing journal", "choose another --folder, or move them away"
            raise SpecError([Violation("", None, what, fix, show_path(trials))])
        yield store
