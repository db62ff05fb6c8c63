"""Kills ranks at random moments: does the run recover exactly, with all checkpoints and no process left?

    python benchmarks/faults.py [--kills 30] [--seed 1] [--folder runs/faults]

A small run of four ranks (three levels, quantised wires, error feedback, dropout) writes a checkpoint every
second step. A rank is killed (SIGKILL) at a random moment of training or, every second time, while a
checkpoint is being written. The run then continues from its folder until it is done and another starts. A
kill is survived if the launcher ends by itself within 30 s with no process left, no existing checkpoint is
lost, and the whole loss curve equals the uninterrupted one bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.run_folder import checkpoints as files

RUN = """\
name: faults
model:
  {num_layers: 4, hidden_size: 64, num_heads: 4, vocab_size: 250, attention_dropout: 0.1, hidden_dropout: 0.1}
machine: {extends: workstation, packages_per_node: 1}
nodes: 2
layout:
  sharding: {preset: three_level, wire: {block: 64, error_feedback: true}}
training: {seq_len: 32, global_batch_size: 16, steps: 60}
optimizer: {learning_rate: 1.0e-2}
data: synthetic
checkpoint: {every_steps: 2}
"""
LIMIT_S = 30.0


@dataclass
class Tally:
    """Kills so far, and what went wrong with any."""

    kills: int = 0
    in_writing: int = 0
    slowest_end_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.kills - len(self.faults)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/faults"))
    args = parser.parse_args()
    tally = kill_and_continue(args.folder, args.kills, args.seed)
    for fault in tally.faults:
        print(fault)
    print(
        f"survived {tally.survived} of {tally.kills} kills, {tally.in_writing} of them while a checkpoint "
        f"was being written; the slowest end took {tally.slowest_end_s:.1f} s"
    )
    sys.exit(bool(tally.faults))


def kill_and_continue(folder: Path, kills: int, seed: int) -> Tally:
    """Kill ``kills`` ranks of runs in ``folder``, and say what came of it."""
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(RUN)
    whole = folder / "whole"
    assert _start(str(folder / "run.yaml"), "--run-dir", str(whole)).wait() == 0
    expected, chance, tally = curve(whole), random.Random(seed), Tally()
    number = 0
    while tally.kills < kills:
        number += 1
        run_dir = folder / f"run-{number}"
        process = _start(str(folder / "run.yaml"), "--run-dir", str(run_dir))
        faults = len(tally.faults)
        while tally.kills < kills and _kill_a_rank(process, run_dir, chance, tally):
            process = _start(str(run_dir))
        code = process.wait()
        if code == 1:  # the last kill
            code = _start(str(run_dir)).wait()
        if (code, curve(run_dir)) != (0, expected) and len(tally.faults) == faults:
            tally.faults.append(f"{run_dir}: ended with {code}, and its curve is another")
    return tally


def curve(run_dir: Path) -> dict[int, float]:
    """Loss by step, by the last record of each."""
    lines = (run_dir / "records.jsonl").read_text().splitlines()
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return {record["step"]: record["loss"] for record in steps}


def _kill_a_rank(
    process: subprocess.Popen[bytes], run_dir: Path, chance: random.Random, tally: Tally
) -> bool:
    """Kill one of the run's ranks and wait for the end; False where the run was done before."""
    in_writing = tally.kills % 2 == 1
    records = run_dir / "records.jsonl"
    size = records.stat().st_size if records.exists() else 0
    while process.poll() is None and not (records.exists() and records.stat().st_size > size):
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1.5))
    while in_writing and process.poll() is None and not list(run_dir.glob("checkpoints/.step-*")):
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.02))
    server = _children(process.pid)
    ranks = _children(server[0]) if server else []
    if not ranks:
        return False
    newest = files.newest_valid(run_dir)[0]
    try:
        os.kill(chance.choice(ranks), signal.SIGKILL)
    except ProcessLookupError:
        return False
    tally.kills += 1
    tally.in_writing += in_writing
    begin = time.monotonic()
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        tally.faults.append(f"{run_dir}: the launcher did not end within {LIMIT_S:.0f} s")
        return True
    tally.slowest_end_s = max(tally.slowest_end_s, time.monotonic() - begin)
    left = [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    after = files.newest_valid(run_dir)[0]
    lost = newest is not None and (after is None or files.step_of(after) < files.step_of(newest))
    if left or lost:
        tally.faults.append(f"{run_dir}: processes left: {left}; a checkpoint was lost: {lost}")
    return code != 0


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("frontrunner")), "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    main()
