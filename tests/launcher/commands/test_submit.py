"""``submit`` where there is no Slurm, or one that says no: one clear line, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from frontrunner.configs.errors import SpecError
from frontrunner.launcher import submission
from frontrunner.run_folder import jobs

FRONTRUNNER = str(Path(sys.executable).with_name("frontrunner"))
Submit = Callable[..., "subprocess.CompletedProcess[str]"]
FRONTIER = ("gpt-22b-frontier", "--account", "abc123")


def add(folder: Path, name: str, code: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def refuse(folder: Path, message: str) -> None:
    """An sbatch that says what Slurm's says."""
    add(folder, "squeue", "exit 0")
    add(folder, "sinfo", "echo batch; echo extended")
    add(folder, "sbatch", f"echo 'sbatch: error: {message}' >&2; exit 1")


def test_what_cannot_fit_is_refused_unless_forced(submit: Submit) -> None:
    small = (*FRONTIER, "--dry-run", "-o", "layout.pipeline=1", "-o", "layout.recompute=none")
    done = submit(*small)
    assert done.returncode == 2
    assert "layout: cannot fit: needs" in done.stderr and "--force" in done.stderr
    forced = submit(*small, "--force")
    assert forced.returncode == 0 and "warning: the planner predicts" in forced.stderr


def test_everything_wrong_is_said_at_once(submit: Submit) -> None:
    done = submit(
        *("gpt-22b-frontier", "--time", "9:00:00", "-o", "slurm.qos=debug"),
        *("-o", "data.train=nowhere", "-o", "checkpoint.start_from=gone"),
    )
    assert done.returncode == 2
    keys = ("slurm.account", "slurm.time_limit", "data.train", "checkpoint.start_from")
    assert all(key in done.stderr for key in keys)


def test_weights_to_start_from_are_checked_before_a_job_is_queued(submit: Submit, tmp_path: Path) -> None:
    model = tmp_path / "work" / "hf"
    model.mkdir()
    (model / "model.safetensors").touch()
    done = submit(*FRONTIER, "--dry-run", "-o", "checkpoint.start_from=hf")
    assert done.returncode == 2
    assert "convert it and name NEW: frontrunner convert hf NEW --to checkpoint" in done.stderr


def test_the_account_that_sbatch_would_take_is_taken(submit: Submit) -> None:
    done = submit("gpt-22b-frontier", "--dry-run", SBATCH_ACCOUNT="abc999")
    assert "#SBATCH --account=abc999\n" in done.stdout
    assert "#SBATCH --account=abc123\n" in submit(*FRONTIER, "--dry-run", SBATCH_ACCOUNT="abc999").stdout


def test_no_slurm_here(submit: Submit, tmp_path: Path) -> None:
    done = submit(*FRONTIER)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("squeue is not on the PATH: Slurm is not available here; ")
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        (
            "Batch job submission failed: Invalid account or account/partition combination specified",
            2,
            'slurm.account = "abc123": Slurm rejected it: Batch job submission failed: Invalid account or',
        ),
        ("invalid partition specified: batch", 2, "use one of: batch, extended"),
        (
            "Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
            2,
            "slurm.time_limit",
        ),
        ("Batch job submission failed: Invalid qos specification", 2, "slurm.qos"),
        ("Batch job submission failed: Requested node configuration is not available", 2, "nodes = 2: "),
        (
            "Batch job submission failed: Unable to contact slurm controller (connect failure)",
            1,
            "nothing was submitted, try again later",
        ),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user`s size "
            "and/or time limits)",
            2,
            "slurm.qos",
        ),
        ("the moon is in the wrong phase", 1, "sbatch: the moon is in the wrong phase"),
    ],
)
def test_what_sbatch_says_is_told_in_one_line(
    submit: Submit, programs: Path, tmp_path: Path, message: str, code: int, said: str
) -> None:
    refuse(programs, message)
    done = submit(*FRONTIER)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert done.returncode == code
    assert len(lines) == 1 and said in lines[0]
    assert not list((tmp_path / "work").iterdir()), "something was left behind"


def test_too_many_jobs_by_slurms_count(submit: Submit, programs: Path) -> None:
    policy = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit)"
    refuse(programs, f"AssocMaxSubmitJobLimit\nsbatch: error: {policy}")
    done = submit(*FRONTIER)
    assert done.returncode == 2
    assert "Slurm rejected it: AssocMaxSubmitJobLimit; wait until a job has ended" in done.stderr


def test_an_answer_that_is_lost_may_have_been_a_job(submit: Submit, programs: Path, tmp_path: Path) -> None:
    refuse(programs, "Batch job submission failed: Socket timed out on send/recv operation")
    done = submit(*FRONTIER, "--run-dir", "run")
    assert done.returncode == 1
    assert "the job may exist anyway: check `squeue --me`" in done.stderr
    assert (tmp_path / "work" / "run" / "run.yaml").exists(), "such a job could not run"


def test_one_job_too_many(submit: Submit, programs: Path) -> None:
    refuse(programs, "must not be called")
    add(programs, "squeue", "echo 17")
    done = submit(*FRONTIER, "-o", "slurm.qos=debug", "--time", "1h")
    assert done.returncode == 2
    assert 'frontier says "Each user is limited to one job in any state at any one point"' in done.stderr


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="Slurm is not installed")
def test_a_controller_that_is_down(submit: Submit, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=9\nMessageTimeout=2\nSlurmUser=root\n"
        "NodeName=n1\nPartitionName=batch Nodes=ALL\n"
    )
    done = submit(*FRONTIER, PATH=os.environ["PATH"], SLURM_CONF=str(conf))
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert done.returncode == 1
    assert "Unable to contact slurm controller" in line and "try again later" in line
    assert not list((tmp_path / "work").iterdir())


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system on which nothing more can be written."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        with pytest.raises(OSError, match="No space"):
            (folder / "filler").write_bytes(bytes(1 << 20))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(submit: Submit, programs: Path, full_disk: Path) -> None:
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", "echo called >&2; exit 1")
    done = submit(*FRONTIER, "--run-dir", str(full_disk / "run"))
    assert done.returncode == 2
    assert "the disk is full; nothing was submitted" in done.stderr
    assert "called" not in done.stderr
    assert {path.name for path in full_disk.iterdir()} == {"filler"}


def test_a_job_whose_number_cannot_be_kept_is_cancelled(
    submit: Submit, programs: Path, tmp_path: Path
) -> None:
    """As when the quota is used up just then: here the file cannot be appended to any more."""
    add(programs, "squeue", "exit 0")
    add(programs, "scancel", f"echo $1 > {tmp_path}/cancelled")
    add(programs, "sbatch", "/bin/rm jobs.jsonl; /bin/mkdir jobs.jsonl; echo 42")
    done = submit(*FRONTIER, "--run-dir", "run")
    assert done.returncode == 1
    assert (tmp_path / "cancelled").read_text() == "42\n"


def test_a_folder_that_slurm_would_misread(submit: Submit) -> None:
    done = submit(*FRONTIER, "--dry-run", "--run-dir", "run %j")
    assert done.returncode == 2 and "does not support % or" in done.stderr


def test_a_run_folder_in_use_stays_as_it_is(submit: Submit, programs: Path, tmp_path: Path) -> None:
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", "echo 42")
    assert submit(*FRONTIER, "--run-dir", "run").returncode == 0
    before = {path: path.read_text() for path in (tmp_path / "work" / "run").iterdir() if path.is_file()}
    done = submit(*FRONTIER, "--run-dir", "run")
    assert done.returncode == 2 and "already contains a run" in done.stderr
    assert "or continue it: frontrunner submit " in done.stderr
    assert before == {path: path.read_text() for path in before}
    assert set(before) == {tmp_path / "work" / "run" / name for name in ("run.yaml", "job.sh", "jobs.jsonl")}


def test_what_the_user_has_set_for_sbatch_does_not_reach_it(
    submit: Submit, programs: Path, tmp_path: Path
) -> None:
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", f"/usr/bin/env > {tmp_path}/env; echo 42")
    submit(*FRONTIER, SBATCH_PARTITION="other", SLURM_NTASKS="3", SLURM_CONF="/conf", KEPT="yes")
    text = (tmp_path / "env").read_text()
    assert "SBATCH_PARTITION" not in text and "SLURM_NTASKS" not in text
    assert "SLURM_CONF=/conf\n" in text and "KEPT=yes\n" in text


def test_the_run_is_in_its_folder(submit: Submit, programs: Path, tmp_path: Path) -> None:
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", f'echo "$PWD" "$@" > {tmp_path}/called; echo "42;cluster"')
    done = submit(*FRONTIER, "--run-dir", "run", "--time", "5h")
    folder = tmp_path / "work" / "run"
    assert (
        "job 42: 2 nodes in batch for 02:00:00, the first of at most 3 segments (05:00:00 in all)"
        in done.stdout
    )
    assert (tmp_path / "called").read_text() == f"{folder} --parsable job.sh\n"
    assert yaml.safe_load((folder / "run.yaml").read_text())["slurm"]["time_limit"] == "5h"
    entries = [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]
    assert [(e["kind"], e.get("job_id")) for e in entries] == [("begun", None), ("submitted", "42")]


def test_nodes_that_the_doctor_found_sick_are_avoided(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "work" / "runs").mkdir()
    (tmp_path / "work" / "runs" / "exclude-frontier.txt").write_text("frontier00012  # network: slow\n")
    done = submit(*FRONTIER, "--dry-run", "-o", "slurm.exclude='frontier[00001-00003]'")
    assert "#SBATCH --exclude=frontier[00001-00003],frontier00012\n" in done.stdout
    assert "frontier00012 excluded by runs/exclude-frontier.txt" in done.stderr


def test_a_run_continues_where_it_ran(submit: Submit, programs: Path, tmp_path: Path) -> None:
    """Its relative paths start there, wherever the command is called; its time may be another."""
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", "echo 42")
    assert submit(*FRONTIER, "--run-dir", "run").returncode == 0
    (tmp_path / "work" / "below").mkdir()
    command = [FRONTRUNNER, "submit", "../run", "--time", "1h"]
    env = {**os.environ, "PATH": str(programs)}
    done = subprocess.run(command, cwd=tmp_path / "work" / "below", env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "frontrunner status ../run\n" in done.stdout
    script = (tmp_path / "work" / "run" / "job.sh").read_text()
    assert f"\ncd -- {tmp_path}/work\n" in script and "--time=01:00:00" in script
    more = submit("run", "--nodes", "4")
    assert more.returncode == 0 and "the run changes nodes: 2 -> 4\n" in more.stderr


def test_two_submissions_of_one_run_at_once(submit: Submit, programs: Path, tmp_path: Path) -> None:
    """The second comes while the first waits for Slurm's answer."""
    work = tmp_path / "work"
    add(programs, "squeue", "exit 0")
    add(programs, "sbatch", "echo 42")
    assert submit(*FRONTIER, "--run-dir", "run").returncode == 0
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    wait = f"while [ ! -e {answer} ]; do /bin/sleep 0.05; done"
    add(programs, "sbatch", f"echo x >> {asked}; {wait}; echo 43")
    env = {**os.environ, "PATH": str(programs)}
    with subprocess.Popen([FRONTRUNNER, "submit", "run"], cwd=work, env=env, stdout=-1, text=True) as first:
        while first.poll() is None and not asked.exists():
            time.sleep(0.05)
        second = submit("run")
        answer.touch()
        assert first.wait(60) == 0
    assert second.returncode == 2 and "this run is starting; wait for it" in second.stderr
    assert asked.read_text() == "x\n"


def test_a_submission_between_the_check_and_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.append(tmp_path, "begun", working_folder=str(tmp_path), segments=1)
    known = jobs.read(tmp_path)
    jobs.append(tmp_path, "submitted", job_id="43", step=0)
    with (
        pytest.raises(SpecError, match="another process has just submitted this run"),
        submission._kept_idle(tmp_path, known, new=False),
    ):
        pytest.fail("it would be submitted twice")
