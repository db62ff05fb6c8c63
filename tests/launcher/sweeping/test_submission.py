"""Trials on a Slurm that is played by programs: each is submitted once, whatever becomes of the answer."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from frontrunner.launcher.sweeping.backends import Attempt, OnSlurm
from frontrunner.run_folder import files, jobs
from frontrunner.slurm.client import Slurm
from frontrunner.slurm.errors import NoAnswer, SlurmFailed
from support.specs import run_spec

# Jobs are numbered from 1; the queue's folders are without symbolic links, as Slurm's are.
SBATCH = """\
echo called >> "$HERE/calls"
while [ -e "$HERE/slow" ]; do sleep 0.01; done
[ -e "$HERE/refuses" ] && { cat "$HERE/refuses" >&2; exit 1; }
number=$(wc -l < "$HERE/calls")
echo "$number|$(pwd -P)" >> "$HERE/queue"
[ -e "$HERE/mute" ] && { echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; }
[ -e "$HERE/dies" ] && kill -9 $$
echo $number
"""
SQUEUE = """\
case "$*" in
  *%Z*) touch "$HERE/queue"; cat "$HERE/queue" ;;
  *) cat "$HERE/states" ;;
esac
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which is a symbolic link, with Slurm's programs on the PATH."""
    for name, code in {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": "exit 1", "scancel": ""}.items():
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
    (tmp_path / "real").mkdir()
    (tmp_path / "here").symlink_to("real")
    monkeypatch.setenv("PATH", f"{tmp_path / 'programs'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HERE", str(tmp_path / "here"))
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "states").touch()
    return tmp_path / "here"


@pytest.fixture
def attempt(here: Path) -> Attempt:
    spec = run_spec(devices=2)
    limited = spec.model_copy(update={"slurm": spec.slurm.model_copy(update={"time_limit": "10m"})})
    return Attempt(here / "sweep" / "trials" / "0000-1", limited)


def backend() -> OnSlurm:
    return OnSlurm(Slurm(os.environ), settle_s=0.0)


def calls() -> int:
    return Path("calls").read_text().count("called")


def job(attempt: Attempt) -> str | None:
    last = jobs.read(attempt.run_dir).last
    return last.job_id if last else None


def wait_for_calls(count: int) -> None:
    deadline = time.monotonic() + 30
    while not (Path("calls").exists() and calls() == count):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_submission_that_outlives_its_controller_is_waited_for(here: Path, attempt: Attempt) -> None:
    (here / "slow").touch()
    child = os.fork()
    if child == 0:
        try:
            backend().start(attempt)
        finally:
            os._exit(0)
    wait_for_calls(1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    later = backend()
    assert [later.start(attempt) for _ in range(3)] == [False] * 3
    assert job(attempt) is None
    (here / "slow").unlink()
    deadline = time.monotonic() + 30
    while not later.start(attempt):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (job(attempt), calls()) == ("1", 1)


def test_an_interrupted_submission_leaves_what_its_job_needs(here: Path, attempt: Attempt) -> None:
    """Ctrl-C goes to sbatch too, which may have made the job by then."""
    (here / "slow").touch()
    code = (
        "import os, pickle, sys\n"
        "from frontrunner.launcher.sweeping.backends import OnSlurm\n"
        "from frontrunner.slurm.client import Slurm\n"
        "OnSlurm(Slurm(os.environ), 0.0).start(pickle.load(sys.stdin.buffer))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    with process.stdin as pipe:
        pickle.dump(attempt, pipe)
    wait_for_calls(1)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0
    assert {"run.yaml", "job.sh", "jobs.jsonl"} <= {path.name for path in attempt.run_dir.iterdir()}


@pytest.mark.parametrize("how", ["mute", "dies"])
def test_a_job_whose_number_never_came_is_found(here: Path, attempt: Attempt, how: str) -> None:
    (here / how).touch()
    with pytest.raises(NoAnswer, match="the job may exist anyway"):
        backend().start(attempt)
    (here / how).unlink()
    assert (attempt.run_dir / "run.yaml").exists() and backend().start(attempt)
    assert (job(attempt), calls()) == ("1", 1)


def test_where_nothing_came_of_it_it_is_submitted_again(here: Path, attempt: Attempt) -> None:
    (here / "mute").touch()
    with pytest.raises(NoAnswer):
        backend().start(attempt)
    (here / "mute").unlink()
    (here / "queue").write_text(f"9|{here}/other/0000-1\n")
    assert backend().start(attempt)
    assert (job(attempt), calls()) == ("2", 2)
    kinds = [json.loads(line)["kind"] for line in (attempt.run_dir / files.JOBS).read_text().splitlines()]
    assert kinds == ["begun", "submitted"]


def test_a_limit_of_jobs_is_no_end_of_a_trial(here: Path, attempt: Attempt) -> None:
    (here / "refuses").write_text(
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, "
        "user's size and/or time limits)\n"
    )
    assert not backend().start(attempt)
    (here / "refuses").unlink()
    assert backend().start(attempt)
    assert (job(attempt), calls()) == ("2", 2)


def test_a_site_that_cannot_be_asked(here: Path, attempt: Attempt) -> None:
    (here / "refuses").write_text("sbatch: error: Unable to contact slurm controller (connect failure)\n")
    with pytest.raises(SlurmFailed, match="nothing was submitted"):
        backend().start(attempt)
    assert not attempt.run_dir.exists()


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING||", 0),
        ("RUNNING|0:07|node1", 7),
        ("TIMEOUT|10:05|node1", 605),
        ("NODE_FAIL|1-02:03:04|node1", 93784),
        ("RUNNING|INVALID|node1", 0),
    ],
)
def test_node_hours_are_those_that_slurm_has_counted(
    here: Path, attempt: Attempt, state: str, expected: int
) -> None:
    """Also of a job that ended without its last line, and after Slurm has forgotten it."""
    first = backend()
    assert first.start(attempt)
    word, held, node = state.split("|")
    (here / "states").write_text(f"1|{word}|None|{node}|1:00|{held or '0:00'}\n")
    first.refresh([attempt])
    assert first.used_s(attempt) == expected
    if first.ended(attempt) is not None:
        assert backend().used_s(attempt) == expected


def test_a_job_counts_its_own_time(here: Path, attempt: Attempt) -> None:
    """So that a trial which nobody has watched costs what it has taken."""
    assert backend().start(attempt)
    code = (
        "import sys; from pathlib import Path\n"
        "from frontrunner.launcher.commands.continue_run import continue_run\n"
        "continue_run(Path(sys.argv[1]), 0)"
    )
    script = f'sleep 2; exec "{sys.executable}" -c "{code}" "{attempt.run_dir}"'
    begin = time.monotonic()
    subprocess.run(["sh", "-c", script], env={**os.environ, "SLURM_JOB_ID": "1"}, capture_output=True)
    last = jobs.read(attempt.run_dir).last
    assert last is not None and last.code == 0
    assert 2 <= last.held_s <= time.monotonic() - begin + 0.1
    assert backend().used_s(attempt) == last.held_s
