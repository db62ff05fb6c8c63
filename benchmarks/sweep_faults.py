"""Kills a sweep's controller at random moments: does each job still run exactly once?

    python benchmarks/sweep_faults.py [--kills 10] [--seed 1] [--folder runs/sweep-faults]

Trials train a tiny GPT on two ranks, on a Slurm of four nodes on this machine: 14 of the 16 points of a
grid, three at once. sbatch waits up to 19 seconds before it asks, as at a busy site: without, it would
be over in five milliseconds, which no kill hits. The sweep runs undisturbed first. Then it runs in another
folder, and `frontrunner sweep run` is killed (SIGKILL) and started again, until the kills are used up.
Every first kill comes at a random moment (all alike) after the start, within a share of the undisturbed
sweep's time such that they spread over the sweep; every second one within ten seconds after a trial's
submission has begun.

All is well if the sweep then ends by itself with the budget used up and the same points complete as
undisturbed; if Slurm has one job of each trial and none else, the job's own records show one start and each
step once, and neither a job nor a process is left; and if the journal can be read.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frontrunner.run_folder import files, jobs

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # for the Slurm that the tests run on
from support.slurm_cluster import SlurmCluster, missing

BASE = """\
name: base
model: {num_layers: 2, hidden_size: 32, num_heads: 4, vocab_size: 250}
machine: {extends: workstation, packages_per_node: 1}
nodes: 1
training: {seq_len: 32, global_batch_size: 16, steps: 6}
data: synthetic
slurm: {environment: {MASTER_ADDR: localhost, OMP_NUM_THREADS: "1"}}  # the nodes' names lead nowhere
"""
STEPS, BUDGET = 6, 14
SWEEP = f"""\
base: base.yaml
space:
  layout.micro_batch_size: [1, 2, 4, 8]
  layout.sharding.preset: [ddp, zero1, zero2, zero3]
budget: {{trials: {BUDGET}, jobs: 3}}
steps: {STEPS}
trial_time: 10m
sampler: grid
early_stop: 0.0
"""
BUSY = '#!/bin/bash\nsleep "$((RANDOM % 20))"\nexec {sbatch} "$@"\n'
LIMIT_S = 1800.0
Trials = list[dict[str, Any]]


@dataclass
class Tally:
    """Kills so far, what the controller was at when they came, and what went wrong."""

    kills: int = 0
    starting: int = 0
    submitting: int = 0
    faults: list[str] = field(default_factory=list)
    node_hours: float = 0.0
    slurms_node_hours: float = 0.0


@dataclass
class Sweep:
    """The sweep in one folder, on a cluster; ``folder`` is without symbolic links, as Slurm has it."""

    cluster: SlurmCluster
    folder: Path
    starts: int = 0

    @property
    def trials_folder(self) -> Path:
        return self.folder / "trials"

    @property
    def log(self) -> Path:
        """What the newest controller has said."""
        return self.folder.with_name(f"{self.folder.name}-{self.starts}.log")

    @property
    def answer(self) -> Path:
        return self.log.with_suffix(".json")

    def start(self, command: str = "run") -> subprocess.Popen[bytes]:
        self.starts += 1
        frontrunner = str(Path(sys.executable).with_name("frontrunner"))
        words = [frontrunner, "sweep", command, "sweep.yaml", "--folder", self.folder.name, "--json"]
        with self.log.open("wb") as log, self.answer.open("wb") as answer:
            return subprocess.Popen(
                words, cwd=self.folder.parent, env=self.cluster.env, stdout=answer, stderr=log
            )

    def finish(self, process: subprocess.Popen[bytes]) -> Trials:
        """Wait for its end, which must be a good one; the trials, by number."""
        code = process.wait(LIMIT_S)
        if code:
            raise RuntimeError(f"{self.log}: ended with {code}\n{self.log.read_text()[-2000:]}")
        trials: Trials = json.loads(self.answer.read_text())["trials"]
        return sorted(trials, key=lambda trial: trial["number"])

    def submissions(self) -> list[jobs.Chain]:
        """Of the trials whose submission has begun."""
        return [jobs.read(file.parent) for file in self.trials_folder.glob(f"*/{files.JOBS}")]

    def jobs(self) -> list[list[str]]:
        """Folder, name, state and elapsed time of each of its jobs: Slurm knows those of the last hour."""
        rows = self.cluster.run("squeue", "--states=all", "-h", "-o", "%Z|%j|%T|%M").splitlines()
        return [row.split("|") for row in rows if Path(row.split("|")[0]).parent == self.trials_folder]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep-faults"))
    args = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    daemons = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets want short paths
    try:
        with SlurmCluster(daemons) as cluster:
            tally = kill_and_go_on(cluster, args.folder, args.kills, args.seed)
    finally:
        shutil.rmtree(daemons, ignore_errors=True)
    for fault in tally.faults:
        print(fault)
    print(
        f"{len(tally.faults)} faults after {tally.kills} kills, {tally.starting} of them before the "
        f"controller had read its trials, {tally.submitting} while a submission was under way; node-hours "
        f"by the sweep {tally.node_hours:.4f}, by Slurm {tally.slurms_node_hours:.4f}"
    )
    sys.exit(bool(tally.faults))


def kill_and_go_on(cluster: SlurmCluster, folder: Path, kills: int, seed: int) -> Tally:
    """Run the sweep undisturbed and disturbed in ``folder``, and say what came of it."""
    folder.mkdir(parents=True)
    _make_busy(cluster, folder.resolve() / "programs")
    (folder / "base.yaml").write_text(BASE)
    (folder / "sweep.yaml").write_text(SWEEP)
    whole = Sweep(cluster, folder.resolve() / "whole")
    begin = time.monotonic()
    expected = whole.finish(whole.start())
    took_s = time.monotonic() - begin
    print(f"undisturbed: {len(expected)} trials in {took_s:.0f} s", flush=True)
    killed, tally, chance = Sweep(cluster, folder.resolve() / "killed"), Tally(), random.Random(seed)
    process = killed.start()
    while tally.kills < kills:
        if not _await_moment(killed, process, tally.kills % 2 == 1, chance, 2 * took_s / kills):
            tally.faults.append(f"the sweep ended after {tally.kills} kills")
            break
        _kill(killed, process, tally)
        process = killed.start()
    try:
        found = killed.finish(process)
    except RuntimeError as error:
        tally.faults.append(str(error))
        return tally
    tally.faults += differences(found, expected)
    tally.faults += [fault for trial in found for fault in audit(killed.trials_folder, trial["number"])]
    tally.faults += _jobs_and_processes(killed) + _unreadable(killed, found)
    tally.node_hours = sum(trial["node_hours"] for trial in found)
    tally.slurms_node_hours = sum(_seconds(elapsed) for *_, elapsed in killed.jobs()) / 3600
    return tally


def _make_busy(cluster: SlurmCluster, programs: Path) -> None:
    """Put an sbatch that takes its time on the path of what is started from now on."""
    sbatch = shutil.which("sbatch")
    assert sbatch is not None, "missing() has looked"
    programs.mkdir()
    (programs / "sbatch").write_text(BUSY.format(sbatch=shlex.quote(sbatch)))
    (programs / "sbatch").chmod(0o755)
    cluster.env["PATH"] = f"{programs}{os.pathsep}{cluster.env['PATH']}"


def _await_moment(
    sweep: Sweep,
    process: subprocess.Popen[bytes],
    in_submission: bool,
    chance: random.Random,
    spread_s: float,
) -> bool:
    """Wait until it is time for a kill; False where the controller ended before."""
    begun = len(sweep.submissions())
    in_submission = in_submission and begun < BUDGET
    if in_submission:
        while process.poll() is None and len(sweep.submissions()) == begun:
            time.sleep(0.002)
    with suppress(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0, 10 if in_submission else spread_s))
    return process.poll() is None


def _kill(sweep: Sweep, process: subprocess.Popen[bytes], tally: Tally) -> None:
    process.kill()
    process.wait()
    tally.kills += 1
    starting = not sweep.log.stat().st_size
    submitting = any(so_far.last is None for so_far in sweep.submissions())
    tally.starting += starting
    tally.submitting += submitting and not starting
    at = "starting" if starting else "submitting" if submitting else "watching"
    print(f"kill {tally.kills}: {at}, {len(sweep.submissions())} submissions so far", flush=True)


def differences(found: Trials, expected: Trials) -> list[str]:
    """What is other than in an undisturbed sweep, or than the budget."""
    faults = [] if len(found) == BUDGET else [f"{len(found)} trials of a budget of {BUDGET}"]
    outcomes = [
        Counter(f"{t['values']}: {t['state']}, attempt {t['attempt']}" for t in t_s)
        for t_s in (found, expected)
    ]
    faults += [f"only disturbed: {one}" for one in outcomes[0] - outcomes[1]]
    faults += [f"only undisturbed: {one}" for one in outcomes[1] - outcomes[0]]
    return faults + [f"{t['values']}: {t['state']}" for t in expected if t["state"] != "complete"]


def audit(trials: Path, number: int) -> list[str]:
    """What a trial's own files say against one submission, one start and each step taken once."""
    folders = [path for path in trials.glob(f"{number:04d}-*") if path.is_dir()]
    if folders != [trials / f"{number:04d}-1"]:
        return [f"trial {number}: has the folders {[path.name for path in folders]}"]
    (run_dir,) = folders
    jobs, records = _lines(run_dir / files.JOBS), _lines(run_dir / files.RECORDS)
    kinds = Counter(line["kind"] for line in jobs)
    numbers = {line["job_id"] for line in jobs if "job_id" in line}
    codes = [line["code"] for line in jobs if line["kind"] == "ended"]
    faults = []
    # A job that ended before a controller found it has noted itself, by its end alone.
    if kinds["begun"] != 1 or kinds["submitted"] > 1 or len(numbers) != 1 or codes != [0]:
        faults.append(f"trial {number}: {dict(kinds)} of jobs {sorted(numbers)}, exit codes {codes}")
    steps = [record["step"] for record in records if record["kind"] == "step"]
    ends = [sum(record["kind"] == kind for record in records) for kind in ("header", "summary")]
    if steps != list(range(1, STEPS + 1)) or ends != [1, 1]:
        faults.append(f"trial {number}: steps {steps}, {ends[0]} starts, {ends[1]} ends")
    return faults


def _jobs_and_processes(sweep: Sweep) -> list[str]:
    """What Slurm says against one job of each trial that ran well, and what is left of any."""
    deadline = time.monotonic() + 60  # the last job says how it ended before it is gone
    while (queued := sweep.cluster.run("squeue", "-h")) and time.monotonic() < deadline:
        time.sleep(0.5)
    faults = [f"still in the queue: {queued}"] if queued else []
    found = Counter((Path(folder).name, name, state) for folder, name, state, _ in sweep.jobs())
    expected = Counter((f"{n:04d}-1", f"sweep-{n:04d}", "COMPLETED") for n in range(BUDGET))
    faults += [f"Slurm has a job too many: {job}" for job in found - expected]
    faults += [f"Slurm has no such job: {job}" for job in expected - found]
    return faults + [f"a process is left: {command}" for command in _processes(sweep.trials_folder)]


def _processes(folder: Path) -> list[str]:
    """Commands that name the folder: sbatch's scripts, the ranks, and what a controller has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            below = (path / "cwd").readlink().is_relative_to(folder)
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if below or f"{folder}/" in command:
                found.append(command)
    return found


def _unreadable(sweep: Sweep, trials: Trials) -> list[str]:
    """Whether a reader of the journal sees other trials than the controller."""
    try:
        seen = sweep.finish(sweep.start("status"))
    except (RuntimeError, ValueError) as error:
        return [f"the journal cannot be read: {error}"]
    return [] if seen == trials else ["the journal holds other trials than the controller had"]


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def _seconds(elapsed: str) -> int:
    """Of squeue's ``1:23:45`` or ``3:04``."""
    total = 0
    for part in elapsed.split(":"):
        total = 60 * total + int(part)
    return total


if __name__ == "__main__":
    main()
