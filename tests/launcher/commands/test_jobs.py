"""``status``, ``logs``, ``cancel`` and ``continue`` by what run folders and Slurm's words say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import dump, load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.commands.cancel import cancel
from frontrunner.launcher.commands.continue_run import continue_run
from frontrunner.launcher.commands.logs import logs
from frontrunner.launcher.commands.status import status
from frontrunner.launcher.runs import Runs, find
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import estimate
from frontrunner.run_folder import failures, jobs
from frontrunner.run_folder.record_reader import last_records, last_step, progress

SPEC = dump(load_run("gpt-22b-frontier", ["slurm={account: abc123, time_limit: 6h}"]).spec)


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A submitted run, job 42, in a folder whose only programs are those that a test adds."""
    folder = tmp_path / "runs" / "one"
    (folder / "logs").mkdir(parents=True)
    (folder / "run.yaml").write_text(SPEC)
    jobs.append(folder, "begun", segments=3, working_folder="/w")
    jobs.append(folder, "submitted", job_id="42", step=0)
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    monkeypatch.chdir(tmp_path)
    return folder


def add(name: str, code: str) -> None:
    program = Path("programs", name)
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)


def record(folder: Path, **fields: Any) -> None:
    with (folder / "records.jsonl").open("a") as file:
        file.write(json.dumps(fields) + "\n")


def row(folder: Path) -> dict[str, Any]:
    return Runs([folder], os.environ).row(folder)


@pytest.mark.parametrize(
    ("squeue", "state", "reason"),
    [
        ("42|PENDING|Priority||2:00:00|0:00", "queued", "Priority: other jobs are ahead"),
        ("42|RUNNING|None|node[1-2]|1:59:00|1:00", "starting", ""),
        ("42|POWER_UP_NODE|None|node[1-2]|1:59:00|1:00", "starting", "Slurm: POWER_UP_NODE"),
        (
            "42|TIMEOUT|None|node[1-2]|0:00|2:00:00",
            "failed",
            "TIMEOUT: it reached its time limit before it had stopped",
        ),
        ("", "failed", ""),
        ("NOTE: maintenance on Tuesday", "failed", ""),
    ],
)
def test_state_follows_slurms_word(run_dir: Path, squeue: str, state: str, reason: str) -> None:
    add("squeue", f"echo '{squeue}'")
    found = row(run_dir)
    assert (found["state"], found["reason"]) == (state, reason)
    assert (found["job_id"], found["segment"], found["segments"]) == ("42", 1, 3)


def test_a_job_that_squeue_has_forgotten_is_looked_up_where_there_is_accounting(run_dir: Path) -> None:
    add("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    add("sacct", "echo '42|CANCELLED by 1000|node1|60'")
    assert row(run_dir)["state"] == "cancelled"
    add("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert row(run_dir)["last_error"] == "job 42 is not listed any more and left no word of its end"


def test_the_runs_own_word_counts_when_nothing_follows(run_dir: Path) -> None:
    add("squeue", "echo '42|COMPLETED|None|n1|0:00|9:00'")
    jobs.append(run_dir, "ended", job_id="42", code=0, step=100)
    assert row(run_dir)["state"] == "finished"
    jobs.append(run_dir, "submitted", job_id="43", step=100)
    jobs.append(run_dir, "ended", job_id="43", code=2, step=100)
    jobs.append(run_dir, "verdict", reason="why")
    assert (row(run_dir)["state"], row(run_dir)["reason"]) == ("failed", "why")
    jobs.append(run_dir, "cancelled")
    assert row(run_dir)["state"] == "cancelled"


def test_a_run_that_ran_out_of_memory_is_told_what_needs_less(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And each option that is named works, and needs less than the plan of the run."""
    now = load_run(str(run_dir / "run.yaml")).spec
    error = "rank 3: torch.OutOfMemoryError: HIP out of memory"
    jobs.append(run_dir, "ended", job_id="42", code=1, step=0, error=error)
    jobs.append(run_dir, "verdict", reason="segment 1 failed")
    shown = row(run_dir)
    assert (shown["state"], shown["last_error"]) == ("failed", error)
    said, _, *options = shown["advice"]
    assert said.startswith("the plan said ")
    assert len(options) == 3
    for option in options:
        override = option.split()[1].rstrip(":")
        changed = load_run(str(run_dir / "run.yaml"), [override]).spec
        assert peak_bytes(changed) < 0.9 * peak_bytes(now)
    status([Path("runs")])
    out = capsys.readouterr().out
    assert all(line in out for line in shown["advice"])
    assert max(map(len, out.splitlines())) <= 80


def peak_bytes(spec: RunSpec) -> float:
    planned = estimate(Workload.of(spec, None), Candidates.of(spec, Layout.from_spec(spec)))
    return float(planned.memory.peak[0])


def test_progress_is_the_last_of_several_segments(run_dir: Path) -> None:
    for step in range(1, 31):
        record(run_dir, kind="step", step=step, loss=3.0 / step, step_time_s=2.0, tokens_per_s_per_device=9.5)
    record(run_dir, kind="header")
    with (run_dir / "records.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 31, "lo')
    found = progress(last_records(run_dir), 100)
    assert (found["step"], found["loss"], found["eta_s"]) == (30, 0.1, 140.0)
    assert last_step(run_dir) == 30
    assert progress([], 100)["step"] == 0 and last_records(run_dir / "nowhere") == []


def test_a_long_header_alone_is_a_record(run_dir: Path) -> None:
    add("squeue", "exit 0")
    record(run_dir, kind="header", time=1e12, spec={"filler": "x" * 5000})
    (run_dir / "jobs.jsonl").unlink()
    assert row(run_dir)["last_error"] == "it was killed, or its machine failed"


def test_only_the_end_of_a_long_file_is_read(run_dir: Path) -> None:
    for step in range(1, 4001):
        record(run_dir, kind="step", step=step, loss=1.0, filler="x" * 200)
    assert last_step(run_dir) == 4000
    assert 100 < len(last_records(run_dir)) < 4000


def test_runs_are_found_below_a_folder_and_by_name(run_dir: Path) -> None:
    assert find([Path("runs")]) == [Path("runs/one")]
    assert find([run_dir]) == [run_dir]
    assert find([Path("nowhere")]) == []


def test_folders_of_no_run_are_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not the folder of a run"):
        logs(tmp_path)
    with pytest.raises(SpecError, match="no log of rank 3"):
        logs(run_dir, rank=3)
    with pytest.raises(SpecError, match="not the folder of a submitted run"):
        cancel([run_dir, tmp_path])
    assert not jobs.read(run_dir).cancelled, "one of two was cancelled all the same"


def test_logs_of_all_jobs_in_their_order(run_dir: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for number in (41, 42):
        (run_dir / "logs" / f"job-{number}.log").write_bytes(b"of %d\n\xff\n" % number)
        os.utime(run_dir / "logs" / f"job-{number}.log", (number, number))
    logs(run_dir)
    assert capfdbinary.readouterr().out == b"of 41\n\xff\nof 42\n\xff\n"
    logs(run_dir, lines=2)
    assert capfdbinary.readouterr().out == b"of 42\n\xff\n"


def test_the_next_segment_waits_for_this_one(run_dir: Path) -> None:
    add("sbatch", 'echo "$PWD" "$@" > called; echo 43')
    record(run_dir, kind="step", step=10)
    continue_run(run_dir, exit_code=75)
    called = (run_dir / "called").read_text()
    assert called == f"{run_dir} --parsable --dependency=afterany:42 --time=02:00:00 job.sh\n"
    found = jobs.read(run_dir)
    assert [(s.job_id, s.step_before) for s in found.segments] == [("42", 0), ("43", 10)]


def test_watching_where_nothing_can_be_redrawn_prints_again(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a pipe or on TERM=dumb, where a live view shows nothing until its end."""
    said: list[str] = []

    def sleep(seconds: float) -> None:
        said.append(capsys.readouterr().out)
        if len(said) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("frontrunner.launcher.commands.status.time.sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        status([run_dir], watch=True)
    assert said[0] == said[1] and str(run_dir) in said[0]


@pytest.mark.parametrize("code", [0, 2, 130])
def test_nothing_follows_these(run_dir: Path, code: int) -> None:
    with pytest.raises(typer.Exit) as ended:
        continue_run(run_dir, exit_code=code)
    assert ended.value.exit_code == code
    assert len(jobs.read(run_dir).segments) == 1


@pytest.mark.parametrize(
    ("code", "error", "own"),
    [
        (143, SpecError([Violation("data.path", "corpus", "does not exist", "name another")]), 2),
        (143, ValueError("the cause"), 1),
        (137, ValueError("the cause"), 1),
        (143, ConnectionError("Connection closed by peer"), None),
        (143, None, None),
    ],
)
def test_a_rank_that_srun_ended_does_not_hide_the_one_at_fault(
    run_dir: Path, code: int, error: BaseException | None, own: int | None
) -> None:
    """srun's code is the largest of all ranks: 143 of one that it ended, or 137."""
    add("sbatch", "echo 43")
    if error:
        failures.record(run_dir, 1, error)
    if own == 2:
        with pytest.raises(typer.Exit) as ended:
            continue_run(run_dir, exit_code=code)
        assert ended.value.exit_code == 2
    else:
        continue_run(run_dir, exit_code=code)
    assert jobs.read(run_dir).segments[0].code == (own or code)


def test_a_controller_that_is_down_for_a_while_ends_no_chain(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontrunner.launcher.commands.continue_run._PAUSE_S", 0.0)
    message = "echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller' >&2"
    add("sbatch", f"if test -e tried; then echo 43; else : > tried; {message}; exit 1; fi")
    continue_run(run_dir, exit_code=1)
    assert [s.job_id for s in jobs.read(run_dir).segments] == ["42", "43"]


@pytest.mark.parametrize(("queued", "expected"), [("", "44"), ("43|{}", "43"), ("43|/another/one", "44")])
def test_a_lost_answer_makes_no_second_job(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, queued: str, expected: str
) -> None:
    """Also where the queue does not answer at first either."""
    monkeypatch.setattr("frontrunner.launcher.commands.continue_run._PAUSE_S", 0.0)
    timed_out = "{ echo 'error: Socket timed out' >&2; exit 1; }"
    add("sbatch", f"test -e tried && echo 44 || {{ : > tried; {timed_out}; }}")
    rows = f"42|{run_dir}\n{queued.format(run_dir)}"
    add("squeue", f"test -e asked && echo '{rows}' || {{ : > asked; {timed_out}; }}")
    continue_run(run_dir, exit_code=1)
    assert [s.job_id for s in jobs.read(run_dir).segments] == ["42", expected]


def test_a_refused_segment_says_why_the_run_ended(run_dir: Path) -> None:
    add("sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1")
    with pytest.raises(SpecError):
        continue_run(run_dir, exit_code=75)
    add("squeue", "echo '42|FAILED|None|n1|0:00|9:00'")
    assert "segment 2 could not be submitted" in row(run_dir)["reason"]


def test_a_segment_that_follows_while_the_run_is_cancelled_is_cancelled(run_dir: Path) -> None:
    line = json.dumps({"kind": "cancelled"})
    add("sbatch", f"echo '{line}' >> jobs.jsonl; echo 43")
    add("scancel", f'echo "$1" > {run_dir}/ended')
    continue_run(run_dir, exit_code=75)
    assert (run_dir / "ended").read_text() == "43\n"


def test_continue_is_for_jobs(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    with pytest.raises(SpecError, match="frontrunner submit RUN_DIR"):
        continue_run(run_dir, exit_code=75)
