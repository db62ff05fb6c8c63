"""What follows a job: the next, or nothing and why."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from frontrunner.run_folder import files, jobs
from frontrunner.run_folder.jobs import Chain
from frontrunner.slurm import chain


def after(folder: Path, *ends: tuple[int, int], begin: bool = True) -> Chain:
    """The chain after jobs that ended with (exit code, last step)."""
    if begin:
        jobs.append(folder, "begun", segments=9, working_folder="/w")
    step = 0
    for number, (code, last) in enumerate(ends, 1):
        jobs.append(folder, "submitted", job_id=str(number), step=step)
        jobs.append(folder, "ended", job_id=str(number), code=code, step=last)
        step = max(step, last)
    return jobs.read(folder)


@pytest.mark.parametrize(
    ("ends", "action", "reason"),
    [
        ([(0, 10)], "done", "complete"),
        ([(75, 10)], "next", ""),
        ([(75, 10), (75, 20)], "next", ""),
        ([(75, 10), (75, 20), (75, 30)], "stop", "all 3 segments"),
        ([(75, 10), (75, 20), (0, 30)], "done", "complete"),
        ([(1, 10)], "next", ""),
        ([(1, 0)], "next", ""),
        ([(1, 0), (1, 0)], "stop", "segments 1 and 2 ended without a new step"),
        ([(75, 10), (1, 10)], "next", ""),
        ([(75, 0), (75, 0)], "stop", "without a new step"),
        ([(2, 0)], "stop", "exit code 2"),
        ([(130, 5)], "stop", "exit code 130"),
        ([(137, 5)], "next", ""),
        ([(75, 10), (75, 20), (1, 25)], "stop", "segment 3 failed (exit code 1), and it was the last"),
    ],
)
def test_decisions(tmp_path: Path, ends: list[tuple[int, int]], action: str, reason: str) -> None:
    decision = chain.decide(after(tmp_path, *ends), 3)
    assert decision.action == action and reason in decision.reason


def test_memory_that_ran_out_before_a_step_runs_out_again(tmp_path: Path) -> None:
    jobs.append(tmp_path, "submitted", job_id="1", step=0)
    error = "rank 3: OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB"
    jobs.append(tmp_path, "ended", job_id="1", code=1, step=0, error=error)
    assert "memory ran out" in chain.decide(jobs.read(tmp_path), 9).reason
    jobs.append(tmp_path, "submitted", job_id="2", step=0)
    jobs.append(tmp_path, "ended", job_id="2", code=1, step=30, error=error)
    assert chain.decide(jobs.read(tmp_path), 9).action == "next", "it came further: a retry may help"


def test_corruption_is_retried_a_few_times(tmp_path: Path) -> None:
    """Each segment comes further, and each finds corruption: the node is bad."""
    error = "rank 3: silent data corruption, found at step 12: rank 3 on node-b (cuda:3): weights differ"
    for number in range(1, 5):
        jobs.append(tmp_path, "submitted", job_id=str(number), step=10 * number - 10)
        jobs.append(tmp_path, "ended", job_id=str(number), code=1, step=10 * number, error=error)
        decision = chain.decide(jobs.read(tmp_path), 9)
        assert decision.action == ("next" if number < 4 else "stop")
    assert decision.reason == "data were corrupted in 4 segments: exclude the node that is named"
    jobs.append(tmp_path, "submitted", job_id="5", step=40)
    jobs.append(tmp_path, "ended", job_id="5", code=75, step=50)
    assert chain.decide(jobs.read(tmp_path), 9).action == "next", "the last one found none"


def test_failures_apart_do_not_add_up(tmp_path: Path) -> None:
    ends = [(1, 0), (75, 10), (1, 10), (75, 20), (1, 20)]
    assert chain.decide(after(tmp_path, *ends), 99).action == "next"


def test_a_crash_at_the_same_step_is_no_progress(tmp_path: Path) -> None:
    """It goes back to a checkpoint and comes as far as before, again and again."""
    assert chain.decide(after(tmp_path, (1, 100), (1, 100), (1, 100)), 99).action == "stop"


def test_every_chain_ends(tmp_path: Path) -> None:
    for number, codes in enumerate(itertools.product([1, 75], repeat=4)):
        folder = tmp_path / str(number)
        folder.mkdir()
        ends = [(code, 10 * n) for n, code in enumerate(codes, 1)]
        assert chain.decide(after(folder, *ends), 4).action == "stop"


def test_cancelled(tmp_path: Path) -> None:
    after(tmp_path, (75, 10))
    jobs.append(tmp_path, "cancelled")
    assert chain.decide(jobs.read(tmp_path), 9).reason == "it was cancelled"


def test_submitting_again_begins_anew(tmp_path: Path) -> None:
    after(tmp_path, (1, 0), (1, 0))
    jobs.append(tmp_path, "cancelled")
    found = after(tmp_path, (1, 0))
    assert len(found.segments) == 1 and not found.cancelled
    assert chain.decide(found, 9).action == "next"


def test_a_job_that_could_not_be_written_down_counts(tmp_path: Path) -> None:
    after(tmp_path, (75, 10))
    jobs.append(tmp_path, "ended", job_id="77", code=1, step=10)
    found = jobs.read(tmp_path)
    assert [segment.job_id for segment in found.segments] == ["1", "77"]
    assert not found.segments[1].progressed


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    whole = after(tmp_path, (75, 10))
    with (tmp_path / files.JOBS).open("a") as file:
        file.write('{"kind": "subm')
    assert jobs.read(tmp_path) == whole
    assert jobs.read(tmp_path / "nowhere") == Chain()
