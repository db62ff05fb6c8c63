"""Where trials run. A backend also handles trials that an earlier controller started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import dump
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.slurm import seconds
from frontrunner.launcher import submission
from frontrunner.launcher.submission import executable
from frontrunner.launcher.sweeping.outcome import Ended
from frontrunner.launcher.sweeping.space import Point
from frontrunner.run_folder import files, jobs, locks
from frontrunner.run_folder.endings import WRONG_REQUEST
from frontrunner.slurm.client import JobState, Slurm


@dataclass(frozen=True)
class Attempt:
    """One start of a trial: its run and its exclusive folder."""

    run_dir: Path
    spec: RunSpec


class Backend(Protocol):
    """A later controller may repeat all calls with the same attempt.

    SlurmFailed if a site does not answer: call again later.
    """

    @property
    def most(self) -> int | None:
        """Maximum concurrent trials; None: the budget's limit."""

    def refresh(self, attempts: Sequence[Attempt]) -> None:
        """Refresh the state of all active trials."""

    def start(self, attempt: Attempt) -> bool:
        """Start it unless it was already started: it runs at most once, even if a controller is killed.

        False if it cannot start now but may later.
        """

    def ended(self, attempt: Attempt) -> Ended | None:
        """How it ended; None while it waits or runs."""

    def stop(self, attempt: Attempt) -> None:
        """End it if it is still running."""

    def used_s(self, attempt: Attempt) -> float:
        """Seconds for which it has held its nodes so far."""


# The lock is released however the program ends; the exit code is written atomically.
_PROGRAM = """\
echo $$ > "$0.pid"
: > "$0.started"
"$@" > "$0.log" 2>&1 < /dev/null
code=$?
echo $code > "$0.code.unfinished" && mv "$0.code.unfinished" "$0.code"
"""


class Local:
    """Trials are ``frontrunner train`` on this machine, in their own sessions that outlive a controller.

    A trial inherits the lock ``RUN_DIR.lock`` at its start and holds it while it lives.
    """

    most: int | None = 1

    def __init__(self, command: str | None = None) -> None:
        self._command = command or executable()
        self._children: list[subprocess.Popen[bytes]] = []

    def refresh(self, attempts: Sequence[Attempt]) -> None:
        """Nothing to do: the state is in files."""

    def start(self, attempt: Attempt) -> bool:
        if _beside(attempt, "started").exists():
            return True
        file = _written(attempt)
        with _beside(attempt, "lock").open("w") as lock:
            if not locks.take(lock):  # an earlier controller has just started it
                return True
            if _beside(attempt, "started").exists():
                return True
            train = [self._command, "train", str(file), "--run-dir", str(attempt.run_dir)]
            child = subprocess.Popen(
                ["sh", "-c", _PROGRAM, str(attempt.run_dir), *train],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        self._children.append(child)
        return True

    def ended(self, attempt: Attempt) -> Ended | None:
        self._children = [child for child in self._children if child.poll() is None]
        if _alive(attempt):
            limit = seconds(attempt.spec.slurm.time_limit or "365d")
            if self.used_s(attempt) <= limit:
                return None
            _beside(attempt, "too-long").touch()
            self.stop(attempt)
        if _beside(attempt, "too-long").exists():
            return Ended(None, "TIMEOUT")
        code = _beside(attempt, "code")
        return Ended(int(code.read_text())) if code.exists() else Ended()

    def stop(self, attempt: Attempt) -> None:
        """SIGKILL its whole session; the ranks end with their launcher."""
        pid = _beside(attempt, "pid")
        deadline = time.monotonic() + 20
        while _alive(attempt) and time.monotonic() < deadline:
            text = pid.read_text().strip() if pid.exists() else ""
            if text:
                with suppress(ProcessLookupError):
                    os.killpg(int(text), signal.SIGKILL)
            time.sleep(0.05)

    def used_s(self, attempt: Attempt) -> float:
        started, code = _beside(attempt, "started"), _beside(attempt, "code")
        if not started.exists():
            return 0.0
        end = code.stat().st_mtime if code.exists() else time.time()
        return end - started.stat().st_mtime


def _beside(attempt: Attempt, kind: str) -> Path:
    return attempt.run_dir.with_name(f"{attempt.run_dir.name}.{kind}")


def _alive(attempt: Attempt) -> bool:
    """Whether a trial's processes live. On file systems without locks: until its exit code is written."""
    held = locks.held(_beside(attempt, "lock"))
    return not _beside(attempt, "code").exists() if held is None else held


class OnSlurm:
    """Trials are submitted runs, several at once.

    The sbatch of a trial inherits the lock ``RUN_DIR.lock``. It may outlive a killed controller and create a
    job later; the next controller looks for that job once the lock is free. Slurm may still process a request
    of a dead sbatch, and some file systems have no locks: ``settle_s`` is how long a job may then take to
    appear.
    """

    most: int | None = None

    def __init__(self, slurm: Slurm, settle_s: float = 10.0) -> None:
        self._slurm, self._settle_s = slurm, settle_s
        self._states: dict[str, JobState] = {}
        self._held_s: dict[Path, int] = {}

    def refresh(self, attempts: Sequence[Attempt]) -> None:
        lasts = [jobs.read(attempt.run_dir).last for attempt in attempts]
        self._states = self._slurm.states(last.job_id for last in lasts if last)
        for attempt, last in zip(attempts, lasts, strict=True):
            state = self._states.get(last.job_id) if last else None
            if state is None:
                continue
            self._held_s[attempt.run_dir] = state.held_s
            if not state.active:  # its state is final, and Slurm forgets old jobs
                _beside(attempt, "held").write_text(f"{state.held_s}\n")

    def start(self, attempt: Attempt) -> bool:
        so_far = jobs.read(attempt.run_dir)
        if so_far.last is not None or _beside(attempt, "code").exists():
            return True
        attempt.run_dir.parent.mkdir(parents=True, exist_ok=True)
        with _beside(attempt, "lock").open("w") as lock:
            if not locks.take(lock):  # an earlier controller's sbatch is still waiting for an answer
                return False
            if so_far.working_folder is not None and self._adopt(attempt):
                return True
            return self._submit(attempt, lock.fileno())

    def _submit(self, attempt: Attempt, lock: int) -> bool:
        for left in (files.SPEC, files.JOBS):  # leftovers of a killed controller without a job
            (attempt.run_dir / left).unlink(missing_ok=True)
        folder, file = attempt.run_dir.absolute(), _written(attempt)
        try:
            document = submission.resolve(str(file), None, (), os.environ)
            job, schedule, _ = submission.prepare(document, folder, force=True)
            submission.send(document, job, schedule, folder, new=True, holding=[lock])
        except SpecError as error:
            if all(violation.path == "slurm" for violation in error.violations):  # too many jobs for now
                return False
            _refused(str(error), attempt)
        return True

    def _adopt(self, attempt: Attempt) -> bool:
        """Whether the earlier controller's submission created a job; if so, adopt it."""
        deadline = time.monotonic() + self._settle_s
        while True:
            found = self._slurm.jobs_in(attempt.run_dir)
            if jobs.read(attempt.run_dir).last is not None:  # it has ended, and recorded that itself
                return True
            if found:
                jobs.append(attempt.run_dir, "submitted", job_id=found.pop(), step=0)
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(1)

    def ended(self, attempt: Attempt) -> Ended | None:
        if _beside(attempt, "code").exists():
            return Ended(int(_beside(attempt, "code").read_text()))
        last = jobs.read(attempt.run_dir).last
        if last is None:
            return None
        if last.code is not None:
            return Ended(last.code)
        job = self._states.get(last.job_id)
        if job is None:
            return Ended() if self._slurm.states([last.job_id]) == {} else None
        return None if job.active else Ended(None, job.state, job.nodes)

    def stop(self, attempt: Attempt) -> None:
        last = jobs.read(attempt.run_dir).last
        if last is not None:
            jobs.append(attempt.run_dir, "cancelled")
            self._slurm.cancel(last.job_id)

    def used_s(self, attempt: Attempt) -> float:
        """From the job's own records if it wrote them, otherwise from Slurm."""
        so_far = jobs.read(attempt.run_dir)
        told = sum(segment.held_s for segment in so_far.segments)
        if so_far.last is None or so_far.last.code is not None:
            return told
        held = _beside(attempt, "held")
        if attempt.run_dir not in self._held_s and held.exists():
            return told + float(held.read_text() or 0)
        return told + self._held_s.get(attempt.run_dir, 0)


def check_submission(
    slurm: Slurm, sweep: SweepDocument, points: Sequence[Point], env: Mapping[str, str]
) -> None:
    """Raise SpecError if Slurm is missing, or if it is certain to reject every point.

    Later rejections by Slurm end one trial each. SlurmFailed if it does not answer.
    """
    try:
        slurm.count_jobs()
    except SpecError as error:
        fix = "run this on a login node, or use --on local"
        raise SpecError(replace(violation, fix=fix) for violation in error.violations) from None
    refusals: list[SpecError] = []
    for spec in {(point.spec.nodes, repr(point.spec.slurm)): point.spec for point in points}.values():
        if spec.slurm.account is None and (usual := env.get("SBATCH_ACCOUNT")):
            slurm_keys = spec.slurm.model_copy(update={"account": usual})
            spec = spec.model_copy(update={"slurm": slurm_keys})
        try:
            submission.prepare(replace(sweep.base, spec=spec), Path("trial").absolute(), force=True)
            return
        except SpecError as error:
            refusals.append(error)
    fix = "set slurm.account in the base run, or SBATCH_ACCOUNT"
    raise SpecError(
        replace(v, fix=fix) if "slurm.account" in (v.path, *v.constraint.split()) else v
        for v in refusals[0].violations
    )


def _written(attempt: Attempt) -> Path:
    """Write the run file of an attempt, atomically."""
    attempt.run_dir.parent.mkdir(parents=True, exist_ok=True)
    file = _beside(attempt, "yaml")
    unfinished = _beside(attempt, "unfinished")
    unfinished.write_text(dump(attempt.spec), encoding="utf-8")
    unfinished.replace(file)
    return file


def _refused(reason: str, attempt: Attempt) -> None:
    """Record why a run could not be started."""
    attempt.run_dir.with_name(f"{attempt.run_dir.name}.log").write_text(f"{reason}\n", encoding="utf-8")
    _beside(attempt, "code").write_text(f"{WRONG_REQUEST}\n")
