"""The command: in front of stand-ins for the ranks, and with real ones that a launcher starts."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import faulty_ranks
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner, Result

from frontrunner.configs.load import read_resolved
from frontrunner.launcher.cli import build
from frontrunner.launcher.ranks import local
from frontrunner.run_folder import jobs
from frontrunner.slurm.client import JobState, Slurm

pytestmark = pytest.mark.usefixtures("no_process_left")
PROGRAM = str(Path(sys.executable).with_name("frontrunner"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(monkeypatch: pytest.MonkeyPatch, function: str, *arguments: str) -> Result:
    """Run the command with ranks that do ``function``."""
    launch = partial(local.launch, target=f"faulty_ranks:{function}", preload=faulty_ranks.PRELOAD)
    monkeypatch.setattr(local, "launch", launch)
    command = ["train", *arguments]
    return CliRunner().invoke(build(command), command)


def test_json(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "finish", "three.yaml", "--run-dir", "new", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "run_dir": "new",
        "steps": 10,
        "first_validation_loss": 5.5,
        "last_validation_loss": 3.5,
        "tokens_per_s_per_device": 1500.0,
        "bytes_per_step": {"package": 2048.0, "node": 1024.0, "network": 512.0},
    }
    assert "step 10/10" in result.stderr and "peak memory per device" in result.stderr


def test_the_folder(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "finish", "three.yaml", "-o", "training.seed=7", "-o", "name=a name")
    assert (result.exit_code, result.stderr) == (0, "")
    (created,) = Path("runs").iterdir()
    assert created.name.startswith("a-name-")
    assert read_resolved(created / "run.yaml").training.seed == 7
    assert f"run folder {created}" in result.stdout


CORRUPTED = ["-o", "training.steps=6", "-o", "checkpoint.every_steps=2", "-o", "watch.verify_every_steps=1"]


def train_for_real(monkeypatch: pytest.MonkeyPatch, function: str, *arguments: str) -> Result:
    """The same with ranks that train."""
    launch = partial(local.launch, target=f"faulty_ranks:{function}")
    monkeypatch.setattr(local, "launch", launch)
    command = ["train", *arguments]
    return CliRunner().invoke(build(command), command)


def test_corrupted_data_send_a_run_back(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    pytest.importorskip("megatron.core")
    result = train_for_real(monkeypatch, "corrupt_once", "three.yaml", "--run-dir", "new", *CORRUPTED)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("silent data corruption, found at step 4: rank 1 on ") == 1
    where = Path("new/checkpoints/step-00000002")
    line = f"data were corrupted; the run goes back and starts again from {where} (3 of these starts left)"
    assert line in result.stdout and "continues after step 2" in result.stdout
    records = [json.loads(line) for line in Path("new/records.jsonl").read_text().splitlines()]
    assert [r["continued_from"] for r in records if r["kind"] == "header"] == [0, 2]
    assert [r["step"] for r in records if r["kind"] == "step"] == [1, 2, 3, 3, 4, 5, 6]
    assert not Path("new/errors").exists()


def test_data_that_are_always_corrupted_end_a_run(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    """Every start flips a bit, and no checkpoint comes further than the last."""
    pytest.importorskip("megatron.core")
    monkeypatch.setattr(local, "_MOST_CORRUPTIONS", 1)
    steps = ["-o", "training.steps=60"]
    result = train_for_real(
        monkeypatch, "corrupt_always", "three.yaml", "--run-dir", "new", *CORRUPTED, *steps
    )
    assert result.exit_code == 1
    assert "rank 1 of 3 on " in result.stderr and "silent data corruption, found at step 6" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.count("of these starts left)") == 1


def test_a_folder_in_use(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    before = (run_dir / "run.yaml").read_text()
    result = train(monkeypatch, "finish", "three.yaml", "--run-dir", str(run_dir), "-o", "name=other")
    assert result.exit_code == 2
    assert "already contains a run" in result.stderr
    assert [path.name for path in run_dir.iterdir()] == ["run.yaml"]
    assert (run_dir / "run.yaml").read_text() == before


def test_a_folder_to_go_on_with(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    (run_dir / "errors").mkdir()
    result = train(monkeypatch, "finish", str(run_dir), "-o", "training.steps=12")
    assert (result.exit_code, result.stderr) == (0, "the run changes training.steps: 10 -> 12\n")
    assert read_resolved(run_dir / "run.yaml").training.steps == 12
    assert not (run_dir / "errors").exists()
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "is a folder without run.yaml: there is no run to continue"),
        (["{run_dir}", "--run-dir", "other"], "which is already a run folder"),
    ],
)
def test_a_folder_that_cannot_go_on(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, arguments: list[str], said: str
) -> None:
    Path("empty").mkdir()
    result = train(monkeypatch, "finish", *(word.format(run_dir=run_dir) for word in arguments))
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize(("state", "what"), [("PENDING", "waits"), ("RUNNING", "runs")])
def test_a_run_whose_job_is_not_over(
    monkeypatch: pytest.MonkeyPatch, run_dir: Path, state: str, what: str
) -> None:
    """It is refused before its folder is touched, except inside that job."""
    jobs.append(run_dir, "begun", working_folder=str(run_dir), segments=1)
    jobs.append(run_dir, "submitted", job_id="42", step=0)
    (run_dir / "errors").mkdir()
    monkeypatch.setattr(Slurm, "states", lambda self, asked: {job: JobState(job, state) for job in asked})
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    result = train(monkeypatch, "finish", str(run_dir))
    assert result.exit_code == 2
    assert (
        f"job 42 of this run {what}; wait for it, or type `frontrunner cancel {quote(str(run_dir))}`"
        in result.stderr
    )
    assert (run_dir / "errors").exists()
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    assert train(monkeypatch, "finish", str(run_dir)).exit_code == 0


def test_asked_to_stop_in_json(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> None:
    result = train(monkeypatch, "stop_at_once", str(run_dir), "--json")
    assert result.exit_code == 75
    assert "frontrunner train" in json.loads(result.stdout)["error"]


def test_a_missing_corpus(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "finish", "three.yaml", "-o", "data={train: corpus/train}", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["violations"][0]["path"] == "data.train"
    assert not Path("runs").exists()


def test_a_rank_that_fails(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "raise_first", "three.yaml", "--json")
    assert result.exit_code == 1
    assert "ValueError: the cause" in json.loads(result.stdout)["error"]
    assert result.stderr.count("Traceback") == 1


def test_without_torch(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = train(monkeypatch, "finish", "three.yaml")
    assert result.exit_code == 1
    assert result.stderr == "torch is not installed: pip install 'frontrunner[train]'\n"
    assert not Path("runs").exists()


@pytest.mark.usefixtures("old_torch")
def test_with_a_torch_that_is_too_old(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "finish", "three.yaml")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith('torch = "2.9.1": frontrunner needs 2.10 or newer; ')
    assert not Path("runs").exists()


def test_tracker(monkeypatch: pytest.MonkeyPatch, run_file: Path) -> None:
    result = train(monkeypatch, "finish", "three.yaml", "--run-dir", "new", "--tracker", "tensorboard")
    assert result.exit_code == 0
    assert list(Path("new/tensorboard").glob("events.out.tfevents.*"))


def test_variables_of_a_batch_script_do_not_make_it_a_rank(
    monkeypatch: pytest.MonkeyPatch, run_file: Path
) -> None:
    for name, value in {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}.items():
        monkeypatch.setenv(name, value)
    assert "starting 3 ranks on this machine" in train(monkeypatch, "finish", "three.yaml").stdout


TWO_RANKS = [
    *("train", "quickstart", "--json", "--run-dir", "new", "-o", "data=synthetic", "-o", "nodes=1"),
    *("-o", "machine.packages_per_node=1", "-o", "layout.micro_batch_size=1"),
    *("-o", "training.steps=3", "-o", "training.seq_len=32", "-o", "training.global_batch_size=4"),
    *("-o", "training.validation_samples=4", "-o", "optimizer.warmup_steps=1"),
    *("-o", "watch.verify_every_steps=2"),
]


def check_trained(stdout: str) -> None:
    answer: dict[str, Any] = json.loads(stdout)
    assert answer["steps"] == 3
    assert answer["last_validation_loss"] > 0
    records = [json.loads(line) for line in Path("new/records.jsonl").read_text().splitlines()]
    kinds = [record["kind"] for record in records]
    assert kinds == ["header", "validation", *["step"] * 3, "validation", "saving", "checkpoint", "summary"]
    sent = [record["bytes_sent"] for record in records if record["kind"] == "step"]
    means = {level: sum(step[level] for step in sent) / 3 for level in sent[0]}
    assert answer["bytes_per_step"] == pytest.approx(means)
    assert sent[1] != sent[2], "the second step is verified"
    assert not Path("new/errors").exists()


def test_two_processes_with_slurms_variables() -> None:
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "localhost"}
    processes = []
    for rank in range(2):
        env = os.environ | step | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        processes.append(subprocess.Popen([PROGRAM, *TWO_RANKS], env=env, stdout=subprocess.PIPE, text=True))
    first, *others = [process.communicate(timeout=280)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 2
    check_trained(first)
    assert others == [""]


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun (Debian: openmpi-bin)")
def test_mpirun() -> None:
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2", PROGRAM, *TWO_RANKS]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stderr
    check_trained(result.stdout)
