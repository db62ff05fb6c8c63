"""Somebody who submits runs to the Slurm of the tests."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from frontrunner.configs.load import dump
from frontrunner.run_folder.state import ACTIVE
from support.program import run
from support.slurm_cluster import SlurmCluster
from support.specs import run_spec

# The nodes' names lead nowhere.
HERE = {"MASTER_ADDR": "localhost", "OMP_NUM_THREADS": "1"}


class User:
    """Someone in a working folder of the cluster, with a run file of ``nodes`` x 2 ranks."""

    def __init__(self, cluster: SlurmCluster, folder: Path, programs: Path | None = None) -> None:
        self.cluster, self.folder, self.programs = cluster, folder, programs or folder
        self.env = cluster.env | {"STAND_IN": "{}"}

    def write_run(
        self, nodes: int = 2, name: str = "test", chain: str = "dependency", **stand_in: Any
    ) -> None:
        rank = self.programs / "rank"
        rank.write_text(f'#!/bin/bash\nexec "{sys.executable}" -m support.stand_in_rank "$@"\n')
        rank.chmod(rank.stat().st_mode | stat.S_IXUSR)
        data = yaml.safe_load(dump(run_spec(nodes=nodes, devices=2)))
        data |= {"name": name}
        data["training"]["steps"] = stand_in.get("steps", 10)
        data["machine"]["site"] = {"chain": chain}
        data["slurm"] |= {
            "time_limit": "10m",
            "signal_before_end": "20s",
            "executable": str(rank),
            "environment": {"STAND_IN": json.dumps({"steps": 10} | stand_in)},
        }
        (self.folder / "run.yaml").write_text(yaml.safe_dump(data, allow_unicode=True))

    def call(self, *arguments: str, code: int = 0) -> str:
        """Standard output of a command, which must end so."""
        done = run(*arguments, folder=self.folder, env=self.env, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    def submit(self, *options: str) -> tuple[str, Path]:
        """Job and run folder."""
        answer = json.loads(self.call("submit", "run.yaml", "--json", "--run-dir", "the run", *options))
        return answer["job_id"], Path(answer["run_dir"])

    def status(self) -> dict[str, Any]:
        (row,) = json.loads(self.call("status", "--json", "the run"))["runs"]
        assert isinstance(row, dict)
        return row

    def wait(self, *states: str, limit_s: float = 90.0) -> dict[str, Any]:
        """Until the run is in one of the states."""
        deadline = time.monotonic() + limit_s
        while (row := self.status())["state"] not in states:
            hopeless = row["state"] not in ACTIVE or time.monotonic() > deadline
            assert not hopeless, f"{row}\n{self.call('logs', 'the run')}\n{self.cluster.log()}"
            time.sleep(0.3)
        return row


def steps(run_dir: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


def wait_for_step(run_dir: Path, step: int) -> None:
    deadline = time.monotonic() + 400
    while not (run_dir / "records.jsonl").exists() or not any(s["step"] >= step for s in steps(run_dir)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
