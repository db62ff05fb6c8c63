"""The state of a run, in one place: from its files, its lock, and what a scheduler says of its job.

    queued -> starting -> running <-> saving -> finished
                 |           |          |
                 +-----------+----------+---> stopped | failed | cancelled -> queued or starting

A run is active while its job waits or runs, or a process holds the lock of its folder. After that, its
last words decide: the records, the end of its last job, and the failures that its ranks wrote.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from frontrunner.run_folder import failures, files, locks
from frontrunner.run_folder.endings import INTERRUPTED, TO_BE_CONTINUED
from frontrunner.run_folder.jobs import Chain
from frontrunner.run_folder.record_reader import steps_of
from frontrunner.run_folder.records import Record

State = Literal["queued", "starting", "running", "saving", "stopped", "finished", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
ACTIVE: frozenset[State] = frozenset(["queued", "starting", "running", "saving"])

#: A run is silent if its last record is older than this many steps and this many seconds.
_SILENT_STEPS, _SILENT_S = 20, 120.0
#: Clocks of two hosts may differ by this much.
_SKEW_S = 5.0


@dataclass(frozen=True)
class JobView:
    """What a scheduler says of a run's last job.

    ``unknown``: it does not list the job. ``not asked``: it did not answer, or is not here. ``reason`` is for
    people; ``started_s`` is in seconds since the epoch, None if unknown.
    """

    phase: Literal["waiting", "running", "ended", "unknown", "not asked"]
    reason: str = ""
    started_s: float | None = None
    cancelled: bool = False
    """It ended because somebody cancelled it."""


@dataclass(frozen=True)
class RunState:
    """``reason`` and ``last_error`` are one line each, ``next`` is a command to type; empty: nothing."""

    state: State
    reason: str = ""
    last_error: str = ""
    next: str = ""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


@dataclass(frozen=True)
class Evidence:
    """All that the state follows from.

    ``records`` are those since the last start that wrote any; ``started_s`` is when that was. ``start`` is
    when a process last took the lock, ``written_s`` when the last record was written (seconds since the
    epoch; 0: never). ``steps`` is what the run file asks for.
    """

    chain: Chain
    records: Sequence[Record]
    locked: bool | None
    job: JobView
    start: locks.Start = locks.Start()
    steps: int | None = None
    started_s: float = 0.0
    written_s: float = 0.0
    failure: str = ""
    """The cause among the failures that ranks wrote."""


def gather(
    run_dir: Path,
    chain: Chain,
    records: Sequence[Record],
    job: JobView,
    steps: int | None,
    start: locks.Start,
) -> Evidence:
    """The evidence in a folder; the records and chain were already read."""
    try:
        written_s = (run_dir / files.RECORDS).stat().st_mtime
    except OSError:
        written_s = 0.0
    started = next((record for record in records if record["kind"] == "header"), None)
    cause = failures.first_cause(run_dir)
    return Evidence(
        chain,
        records,
        locks.held(run_dir / files.LOCK),
        job,
        start,
        steps,
        # A long run's header is not among its last records.
        float(started.get("time", 0.0)) if started else start.time_s if records else 0.0,
        written_s,
        cause.summary if cause else "",
    )


def judge(found: Evidence, run_dir: Path, now: float | None = None) -> RunState:
    """The state that follows from the evidence; pure, but for the clock if ``now`` is None."""
    state, reason, error = _judge(found, time.time() if now is None else now)
    return RunState(state, reason, error, _next(state, found, run_dir))


def _judge(found: Evidence, now: float) -> tuple[State, str, str]:
    chain, job = _submitted(found), found.job
    if chain is not None and job.phase == "waiting":
        return ("cancelled", "its job is leaving the queue", "") if chain.cancelled else _queued(chain, job)
    if job.phase == "running" or found.locked:
        if chain is not None and chain.cancelled:
            return "cancelled", "its job is ending", ""
        return _active(found, now)
    last = found.records[-1] if found.records else None
    if last is not None and last["kind"] == "summary":
        done = last.get("steps")
        if done is None or found.steps is None or done >= found.steps:
            return "finished", "", ""
        return "stopped", f"{done} steps are done, and its run file asks for {found.steps}", ""
    if chain is not None and (chain.cancelled or job.cancelled):
        return "cancelled", "by `frontrunner cancel`" if chain.cancelled else "its job was cancelled", ""
    return _ended(found, chain, last)


def _submitted(found: Evidence) -> Chain | None:
    """The chain, unless the run was started by hand since its last job."""
    chain = found.chain
    if chain.last is None:
        return None
    ours = {segment.job_id for segment in chain.segments}
    by_hand = found.start.time_s > chain.begun_s and found.start.job_id not in ours
    return None if by_hand and found.job.phase not in ("waiting", "running") else chain


def _queued(chain: Chain, job: JobView) -> tuple[State, str, str]:
    last = chain.last
    assert last is not None
    which = f"segment {last.number}: " if last.number > 1 else ""
    return "queued", f"{which}{job.reason}" if job.reason else which.rstrip(": "), ""


def _active(found: Evidence, now: float) -> tuple[State, str, str]:
    """A process of the run lives."""
    # The lock's time and the header's are of one clock; the scheduler's is another.
    began_s = found.start.time_s if found.locked else (found.job.started_s or 0.0) - _SKEW_S
    if not found.records or found.started_s < began_s:
        return "starting", found.job.reason, ""
    kind = found.records[-1]["kind"]
    if kind == "summary":
        return "finished", "", ""
    if kind in ("saving", "stopped"):
        return "saving", "", ""
    if kind == "ended" or found.locked is False:
        return "running", "its job is ending", ""
    times = [step["step_time_s"] for step in steps_of(list(found.records)) if step.get("step_time_s")]
    if kind == "header" and not times:
        return "running", "before the first step", ""
    usual = sorted(times)[len(times) // 2] if times else 0.0
    quiet_s = now - found.written_s
    silent = quiet_s > max(_SILENT_S, _SILENT_STEPS * usual)
    return "running", f"silent: no record for {quiet_s / 60:.0f} min" if silent else "", ""


def _ended(found: Evidence, chain: Chain | None, last: Record | None) -> tuple[State, str, str]:
    """No process of the run lives, it did not finish and was not cancelled."""
    code = chain.last.code if chain is not None and chain.last is not None else None
    verdict = chain.verdict or "" if chain is not None else ""
    told = (chain.last.error if chain is not None and chain.last is not None else "") or found.failure
    if last is not None and last["kind"] == "ended":
        if last["how"] == "interrupted":
            return "stopped", _from_checkpoint(found, "it was interrupted"), ""
        return "failed", verdict, last["message"]
    stopped = last is not None and last["kind"] == "stopped"
    if code == TO_BE_CONTINUED or stopped and code in (None, 0):
        return "stopped", verdict or "on request, after a checkpoint", ""
    if code == INTERRUPTED:
        return "stopped", _from_checkpoint(found, "it was interrupted"), ""
    if code == 0:
        return "finished", "", ""
    if told:
        return "failed", verdict or found.job.reason, told
    if code is not None:
        return "failed", verdict, f"its ranks ended with exit code {code}"
    if chain is not None and found.job.phase == "not asked":
        begun = bool(found.records) and found.started_s >= chain.begun_s
        return ("running" if begun else "queued"), "as last known: the scheduler could not be asked", ""
    return "failed", found.job.reason, _without_a_word(found, chain)


def _without_a_word(found: Evidence, chain: Chain | None) -> str:
    if chain is not None and chain.last is not None:
        if found.job.phase == "ended":
            return ""  # the scheduler's reason says it
        what = f"job {chain.last.job_id} is not listed any more and left no word of its end"
        return _from_checkpoint(found, what)
    started = "it was killed, or its machine failed" if found.records else "it ended before it wrote a record"
    return _from_checkpoint(found, started)


def _from_checkpoint(found: Evidence, what: str) -> str:
    """What happened, and where it would go on."""
    saved = [record["step"] for record in found.records if record["kind"] == "checkpoint"]
    return f"{what}; its last checkpoint is of step {saved[-1]}" if saved else what


def _next(state: State, found: Evidence, run_dir: Path) -> str:
    folder = shlex.quote(str(run_dir))
    match state:
        case "queued" | "starting" | "running" | "saving":
            return f"frontrunner logs --follow {folder}" if found.chain.last else f"frontrunner top {folder}"
        case "finished":
            return f"frontrunner analyze {folder}"
        case _:
            return f"frontrunner {'submit' if _submitted(found) else 'train'} {folder}"
