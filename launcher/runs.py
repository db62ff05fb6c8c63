"""Finds run folders, and says of each what `status`, `top`, `logs` and `cancel` show of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.advice import advice_for
from frontrunner.run_folder import files, jobs, locks, state
from frontrunner.run_folder.jobs import Chain
from frontrunner.run_folder.record_reader import last_records, last_start, progress
from frontrunner.run_folder.records import Record
from frontrunner.run_folder.state import JobView, RunState
from frontrunner.slurm.client import JobState, Slurm
from frontrunner.slurm.errors import SlurmFailed

#: Enough for the last steps of a run: there may be ten thousand runs.
_TAIL_BYTES = 3 * 1024


def find(folders: Iterable[Path]) -> list[Path]:
    """The runs among these folders and one level below, newest last."""
    found: dict[Path, float] = {}
    for folder in folders:
        begun = any((folder / name).exists() for name in (files.RECORDS, files.JOBS))
        below = {} if begun else _dated(_below(folder))
        found |= below or _dated([folder])  # a run file beside runs is no run
    return sorted(found, key=lambda path: (found[path], path))


def _dated(folders: Iterable[Path]) -> dict[Path, float]:
    return {folder: when for folder in folders if (when := _changed_s(folder)) is not None}


def _below(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return []


def _changed_s(run_dir: Path) -> float | None:
    """When a folder's run last changed, in seconds since the epoch; None if it holds no run.

    Records alone are a run too: people copy them.
    """
    times = []
    for name in (files.SPEC, files.RECORDS, files.JOBS):
        with suppress(OSError):
            times.append(os.stat(f"{run_dir}/{name}").st_mtime)  # noqa: PTH116 - faster, for thousands of runs
    return max(times, default=None)


class Runs:
    """Runs and Slurm's word on their jobs, which is asked for at once for all of them.

    ``unreadable`` says why a run's jobs cannot be read. ``problem`` is why Slurm could not be asked; None if
    it could, or there was nothing to ask.
    """

    def __init__(self, run_dirs: Sequence[Path], env: Mapping[str, str]) -> None:
        self.run_dirs = run_dirs
        self.problem: SpecError | SlurmFailed | None = None
        self._slurm = Slurm(env)
        self._jobs: dict[str, JobState] = {}
        self.chains: dict[Path, Chain] = {}
        self.unreadable: dict[Path, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the chains again, and ask Slurm again."""
        self.chains, self.unreadable = {}, {}
        for run_dir in self.run_dirs:
            try:
                self.chains[run_dir] = jobs.read(run_dir)
            except OSError as error:
                self.chains[run_dir] = Chain()
                self.unreadable[run_dir] = f"{files.JOBS}: {error.strerror}"
        asked = {chain.last.job_id for chain in self.chains.values() if chain.last and not _over(chain)}
        self.problem = None
        try:
            self._jobs = self._slurm.states(asked)
        except (SpecError, SlurmFailed) as error:
            self._jobs, self.problem = {}, error

    def job(self, run_dir: Path) -> JobState | None:
        """Slurm's word on the run's last job; None if it said nothing."""
        last = self.chains[run_dir].last
        return self._jobs.get(last.job_id) if last else None

    def view(self, run_dir: Path) -> JobView:
        """What is known of the run's last job."""
        job = self.job(run_dir)
        if job is not None:
            return job.view()
        if _over(self.chains[run_dir]):
            return JobView("ended")
        return JobView("not asked" if self.problem else "unknown")

    def over(self, run_dir: Path) -> bool:
        """Whether the run is certainly over: its job has ended by its own word, and nothing trains in it."""
        chain = self.chains[run_dir]
        return (chain.last is None or _over(chain)) and locks.held(run_dir / files.LOCK) is False

    def state(self, run_dir: Path) -> RunState:
        """The state of a run."""
        return self._judge(run_dir, _last_records(run_dir))[0]

    def _judge(self, run_dir: Path, records: Sequence[Record]) -> tuple[RunState, int | None]:
        """The state of a run with these last records, and the steps that it was last asked for."""
        chain, start = self.chains[run_dir], locks.last_start(run_dir / files.LOCK)
        steps = _steps(run_dir, chain, records, start)
        found = state.gather(run_dir, chain, records, self.view(run_dir), steps, start)
        return state.judge(found, run_dir), steps

    def row(self, run_dir: Path) -> dict[str, Any]:
        """The ``--json`` object of a run in `status`."""
        chain, job = self.chains[run_dir], self.job(run_dir)
        records = _last_records(run_dir)
        now, steps = self._judge(run_dir, records)
        last = chain.last
        return {
            "run_dir": str(run_dir),
            "name": chain.name or run_dir.name,
            "job_id": last.job_id if last else None,
            "state": now.state,
            "reason": now.reason,
            "last_error": self.unreadable.get(run_dir, now.last_error),
            "next": now.next,
            "advice": advice_for(run_dir, now),
            "nodes": job.nodes if job else "",
            "time_left": job.time_left if job else "",
            "segment": last.number if last else 0,
            "segments": chain.allowed or 0,
            **progress(records, steps),
        }


def check_no_job(run_dir: Path, env: Mapping[str, str]) -> None:
    """SpecError if a job of the run waits or runs, by Slurm's word, and this process is not in it."""
    runs = Runs([run_dir], env)
    job, last = runs.job(run_dir), runs.chains[run_dir].last
    if job is None or last is None or not job.active or last.job_id == env.get("SLURM_JOB_ID"):
        return
    what = "waits" if job.view().phase == "waiting" else "runs"
    fix = f"wait for it, or type `frontrunner cancel {shlex.quote(str(run_dir))}` first"
    raise SpecError([Violation("", str(run_dir), f"job {last.job_id} of this run {what}", fix)])


def _last_records(run_dir: Path) -> list[Record]:
    """The last records of the last start; a header alone may be longer than the usual tail."""
    return last_start(last_records(run_dir, _TAIL_BYTES) or last_records(run_dir))


def _over(chain: Chain) -> bool:
    """Whether the run has no job any more, by its own files."""
    return chain.last is not None and chain.last.code is not None and chain.verdict is not None


def _steps(run_dir: Path, chain: Chain, records: Sequence[Record], start: locks.Start) -> int | None:
    """The steps that the run was last asked for; None if its run file is damaged."""
    if chain.steps is not None and chain.begun_s >= start.time_s:
        return chain.steps
    if start.steps is not None:
        return start.steps
    header: Any = next((record for record in records if record["kind"] == "header"), {})
    asked = header.get("spec", {}).get("training", {}).get("steps")
    if isinstance(asked, int):
        return asked
    from frontrunner.configs.load import read_resolved

    try:
        return read_resolved(run_dir / files.SPEC).training.steps
    except (SpecError, OSError):
        return chain.steps
