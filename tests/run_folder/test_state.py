"""The state of a run: every state, and every way from one to the next, by the evidence for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frontrunner.run_folder import failures, files, jobs, locks, state
from frontrunner.run_folder.jobs import Chain, Segment
from frontrunner.run_folder.record_reader import last_records, last_start
from frontrunner.run_folder.state import Evidence, JobView

NOW, START = 10_000.0, 9_000.0
RUN = Path("runs/a run")
QUEUED = JobView("waiting", "Priority: other jobs are ahead")
LIVE, OVER = JobView("running", started_s=START - 60), JobView("ended")
NONE = JobView("unknown")
NOT_SUBMITTED = Chain()
HEADER = {"kind": "header", "time": START}
STEP = {"kind": "step", "step": 5, "step_time_s": 2.0}
SAVING = {"kind": "saving", "step": 5}
SAVED = {"kind": "checkpoint", "step": 5}
STOPPED = {"kind": "stopped", "step": 5}
SUMMARY = {"kind": "summary", "steps": 10}
FAILED = {"kind": "ended", "how": "failed", "message": "rank 3: ValueError: wrong"}
INTERRUPTED = {"kind": "ended", "how": "interrupted", "message": ""}


def chain(code: int | None = None, verdict: str | None = None, **fields: Any) -> Chain:
    last = Segment(1, "42", 0, code, error=fields.pop("error", ""))
    return Chain((last,), verdict=verdict, begun_s=START - 100, **fields)


def judged(*records: Any, jobs: Chain = NOT_SUBMITTED, job: JobView = NONE, **fields: Any) -> state.RunState:
    started_s = START if records else 0.0
    found = Evidence(jobs, records, fields.pop("locked", False), job, steps=10, started_s=started_s)
    found = Evidence(**{**vars(found), "written_s": NOW - 3, **fields})
    return state.judge(found, RUN, NOW)


HERE: dict[str, Any] = {"locked": True, "start": locks.Start(START - 1)}
IN_JOB: dict[str, Any] = {"jobs": chain(), "job": LIVE, "locked": True, "start": locks.Start(START - 1, "42")}
CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    # on this machine
    ("started", (), {"locked": True, "start": locks.Start(NOW - 1)}, "starting"),
    ("started again", (HEADER, STEP, STOPPED), {"locked": True, "start": locks.Start(NOW - 1)}, "starting"),
    ("header", (HEADER,), HERE, "running"),
    ("step", (HEADER, STEP), HERE, "running"),
    ("checkpoint begun", (HEADER, STEP, SAVING), HERE, "saving"),
    ("goes on meanwhile", (HEADER, STEP, SAVING, STEP), HERE, "running"),
    ("checkpoint written", (HEADER, STEP, SAVING, SAVED), HERE, "running"),
    ("stop is written", (HEADER, STEP, SAVED, STOPPED), HERE, "saving"),
    ("stopped", (HEADER, STEP, SAVED, STOPPED), {}, "stopped"),
    ("interrupted", (HEADER, STEP, SAVED, INTERRUPTED), {}, "stopped"),
    ("last step written", (HEADER, STEP, SUMMARY), HERE, "finished"),
    ("finished", (HEADER, STEP, SUMMARY), {}, "finished"),
    ("asked for more", (HEADER, STEP, SUMMARY), {"steps": 20}, "stopped"),
    ("failed", (HEADER, STEP, FAILED), {}, "failed"),
    ("killed", (HEADER, STEP), {}, "failed"),
    ("killed at the start", (), {}, "failed"),
    # as a job
    ("submitted", (), {"jobs": chain(), "job": QUEUED}, "queued"),
    ("next segment waits", (HEADER, STEP, STOPPED), {"jobs": chain(), "job": QUEUED}, "queued"),
    ("job began", (), {"jobs": chain(), "job": LIVE}, "starting"),
    (
        "next job began",
        (HEADER, STOPPED),
        {"jobs": chain(), "job": JobView("running", started_s=NOW)},
        "starting",
    ),
    ("job runs", (HEADER, STEP), IN_JOB, "running"),
    ("job saves", (HEADER, STEP, SAVING), IN_JOB, "saving"),
    ("job without locks", (HEADER, STEP), IN_JOB | {"locked": None}, "running"),
    ("ranks have ended", (HEADER, STEP, FAILED), IN_JOB | {"locked": False}, "running"),
    ("job finished", (HEADER, SUMMARY), {"jobs": chain(0, "complete"), "job": OVER}, "finished"),
    ("time is used up", (HEADER, STOPPED), {"jobs": chain(75, "used up"), "job": OVER}, "stopped"),
    ("ranks failed", (HEADER,), {"jobs": chain(1, "last", error="rank 1: x"), "job": OVER}, "failed"),
    ("request was wrong", (), {"jobs": chain(2, "exit code 2"), "job": OVER}, "failed"),
    (
        "scancel in the job",
        (HEADER,),
        {"jobs": chain(), "job": JobView("ended", cancelled=True)},
        "cancelled",
    ),
    ("time limit", (HEADER,), {"jobs": chain(), "job": JobView("ended", "TIMEOUT: late")}, "failed"),
    ("forgotten", (HEADER,), {"jobs": chain(), "job": NONE}, "failed"),
    ("nobody to ask", (HEADER,), {"jobs": chain(), "job": JobView("not asked")}, "running"),
    ("nobody to ask before it began", (), {"jobs": chain(), "job": JobView("not asked")}, "queued"),
    (
        "nobody to ask, but it told",
        (HEADER,),
        {"jobs": chain(1, error="rank 1: x"), "job": JobView("not asked")},
        "failed",
    ),
    ("cancelled in the queue", (), {"jobs": chain(cancelled=True), "job": QUEUED}, "cancelled"),
    ("cancelled, its ranks end", (HEADER,), IN_JOB | {"jobs": chain(cancelled=True)}, "cancelled"),
    ("cancelled", (HEADER,), {"jobs": chain(cancelled=True), "job": OVER}, "cancelled"),
    # one after the other
    (
        "goes on by hand after its job",
        (HEADER, STEP),
        {"jobs": chain(75, "used up"), "locked": True, "start": locks.Start(START - 1)},
        "running",
    ),
    (
        "failed by hand after its job was cancelled",
        (HEADER, STEP, FAILED),
        {"jobs": chain(cancelled=True), "job": OVER, "start": locks.Start(START - 1)},
        "failed",
    ),
]


@pytest.mark.parametrize(
    ("records", "fields", "expected"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_state_follows_from_evidence(records: Any, fields: dict[str, Any], expected: str) -> None:
    assert judged(*records, **fields).state == expected


def test_every_state_has_a_case() -> None:
    assert {case[3] for case in CASES} == set(state.STATES)


def test_reason_error_and_next_command() -> None:
    failed = judged(HEADER, STEP, FAILED)
    assert (failed.last_error, failed.next) == ("rank 3: ValueError: wrong", "frontrunner train 'runs/a run'")
    memory = chain(1, "segment 1 failed (exit code 1), and it was the last", error="rank 0: out of memory")
    as_job = judged(HEADER, jobs=memory, job=OVER)
    assert (as_job.last_error, as_job.reason) == ("rank 0: out of memory", memory.verdict)
    assert as_job.next == "frontrunner submit 'runs/a run'"
    waiting = judged(jobs=chain(), job=QUEUED)
    assert (waiting.reason, waiting.next) == (QUEUED.reason, "frontrunner logs --follow 'runs/a run'")
    killed = judged(HEADER, STEP, SAVED)
    assert killed.last_error == "it was killed, or its machine failed; its last checkpoint is of step 5"
    assert judged(HEADER, STEP, **HERE, written_s=NOW - 7200).reason == "silent: no record for 120 min"
    assert judged(HEADER, STEP, **HERE).reason == ""


def test_evidence_is_gathered_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / files.RECORDS).write_text("".join(json.dumps(r) + "\n" for r in (HEADER, STEP)))
    failures.record(tmp_path, 1, ConnectionError("Connection closed by peer"))
    failures.record(tmp_path, 2, ValueError("the cause\nand more"))

    def of(job: JobView = NONE) -> state.RunState:
        records = last_start(last_records(tmp_path))
        start = locks.last_start(tmp_path / files.LOCK)
        return state.judge(state.gather(tmp_path, jobs.read(tmp_path), records, job, 10, start), tmp_path)

    assert (of().state, of().last_error) == ("failed", "rank 2: ValueError: the cause")
    with (tmp_path / files.LOCK).open("a") as lock:
        assert locks.take(lock)
        locks.note_start(lock, None)
        assert of().state == "starting"
    assert of().state == "failed"


def test_a_lock_is_seen_and_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert locks.held(path) is False
    with path.open("a") as mine, path.open("a") as other:
        assert locks.held(path) is False
        assert locks.take(mine) and locks.held(path) is True
        assert not locks.take(other)
    assert locks.held(path) is False


def test_damaged_files_of_failures_are_passed_over(tmp_path: Path) -> None:
    failures.record(tmp_path, 1, ValueError("why"))
    for name in ("rank-0.txt", "rank-x.txt", "other"):
        (tmp_path / files.ERRORS / name).write_text("{damaged")
    cause = failures.first_cause(tmp_path)
    assert cause is not None and cause.rank == 1
