"""A sweep on a real Slurm of four nodes: trials at once, refusals, a controller that is killed, orphans."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna")

from frontrunner.configs.load import dump
from frontrunner.configs.load_sweep import load_sweep
from frontrunner.launcher.sweeping.backends import Attempt, OnSlurm
from frontrunner.launcher.sweeping.space import points
from frontrunner.run_folder import files, jobs
from frontrunner.slurm.client import Slurm
from support.program import run, start
from support.slurm_cluster import SlurmCluster
from support.specs import run_spec

SWEEP = """\
base: base.yaml
space:
  slurm.partition: [batch, nowhere]
  optimizer.learning_rate: [0.001, 0.002, 0.003, 0.004, 0.005, 0.006]
budget: {trials: 100, jobs: 3}
steps: 6
trial_time: 10m
sampler: grid
"""


def write_base(folder: Path, **stand_in: float) -> None:
    rank = folder / "rank"
    rank.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m support.stand_in_rank "$@"\n')
    rank.chmod(0o755)
    data = yaml.safe_load(dump(run_spec(nodes=1, devices=2)))
    data["slurm"] |= {
        "signal_before_end": "20s",
        "executable": str(rank),
        "environment": {"STAND_IN": json.dumps({"steps": 6, "pause_s": 0.3} | stand_in)},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(data))
    (folder / "sweep.yaml").write_text(SWEEP)


@pytest.mark.long
@pytest.mark.timeout(280)
def test_a_killed_controller_submits_each_trial_once(cluster: SlurmCluster, tmp_path: Path) -> None:
    write_base(tmp_path)
    command = ["sweep", "run", "sweep.yaml", "--json"]
    for number, pause_s in enumerate((2.0, 0.3, 1.0)):
        log = tmp_path / f"killed-{number}.log"
        with log.open("w") as file:
            killed = start((0, file.fileno(), file.fileno()), command, tmp_path, cluster.env)
            deadline = time.monotonic() + 60
            while "\ntrial " not in log.read_text() and Path(f"/proc/{killed.pid}").exists():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            time.sleep(pause_s)
            killed.kill()
    done = run(*command, folder=tmp_path, env=cluster.env)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout)["trials"]
    states: dict[str, list[str]] = {"batch": [], "nowhere": []}
    for trial in trials:
        states[trial["values"]["slurm.partition"]].append(trial["failure"] or trial["state"])
    assert states == {"batch": ["complete"] * 6, "nowhere": ["rejection"] * 6}
    jobs = cluster.run("squeue", "--states=all", "-h", "-o", "%j").split()
    names = [f"sweep-{t['number']:04d}" for t in trials if t["state"] == "complete"]
    assert sorted(name for name in jobs if name.startswith("sweep-")) == sorted(names)


@pytest.mark.parametrize("pause_s", [0.0, 1.0])
def test_a_job_that_nobody_noted_is_adopted(
    cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    """A controller that is killed between sbatch's answer and writing it down, the job running or ended."""
    for key in ("SLURM_CONF", "PYTHONPATH"):
        if key in cluster.env:
            monkeypatch.setenv(key, cluster.env[key])
    write_base(tmp_path, pause_s=pause_s)
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")  # as the roots of parallel file systems often are
    monkeypatch.chdir(tmp_path)
    backend = OnSlurm(Slurm(cluster.env), settle_s=1.0)
    spec = points(load_sweep("sweep.yaml"))[0].spec.model_copy(update={"name": f"orphan-{pause_s}"})
    attempt = Attempt(tmp_path / "link" / "trials" / "0000-1", spec)
    assert backend.start(attempt)
    last = jobs.read(attempt.run_dir).last
    assert last is not None
    if pause_s == 0:
        cluster.wait(last.job_id, "COMPLETED")
    noted = [
        line
        for line in (attempt.run_dir / files.JOBS).read_text().splitlines(keepends=True)
        if '"submitted"' not in line
    ]
    (attempt.run_dir / files.JOBS).write_text("".join(noted))
    assert OnSlurm(Slurm(cluster.env), settle_s=1.0).start(attempt)
    adopted = jobs.read(attempt.run_dir).last
    assert adopted is not None
    assert adopted.job_id == last.job_id
    assert cluster.run("squeue", "--states=all", "-h", "-o", "%j").split().count(f"orphan-{pause_s}") == 1
