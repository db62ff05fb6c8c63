"""Lets faults of many kinds befall runs at random: does each go on exactly, or say what to do?

    python benchmarks/random_faults.py [--faults 60] [--seed 1] [--folder runs/random-faults] [--kinds A,B]

A small run of two ranks on a corpus writes a checkpoint every fourth step. A fault befalls it at a random
moment, it is started again, and so on until it is done and another begins; every kind has its turn before
one comes again. ``full_disk`` and ``read_only`` put the runs on a file system in memory, which needs root.

A fault is survived if the program ends by itself within a minute, with the exit code that the fault asks
for and no process left; if a start that cannot work is refused by one line that names a fix; and if the
loss curve of its run equals the undisturbed one bit for bit.
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
from collections import Counter
from pathlib import Path

from fault_kinds import FRONTRUNNER, KINDS, NEED_ROOT, Bad, Run, kill_all

from frontrunner.run_folder.endings import WRONG_REQUEST

RUN = """\
name: faults
model: {{num_layers: 2, hidden_size: 32, num_heads: 4, vocab_size: 257, hidden_dropout: 0.1}}
machine: {{extends: workstation, packages_per_node: 1}}
nodes: 1
training: {{seq_len: 32, global_batch_size: 8, steps: 120}}
optimizer: {{learning_rate: 1.0e-2}}
data: {{train: {corpus}}}
checkpoint: {{every_steps: 4}}
watch: {{hang_after_s: 10}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/random-faults"))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the disk is unmounted
    kinds = [kind for kind in args.kinds if os.geteuid() == 0 or kind not in NEED_ROOT]
    tried, failed = befall(args.folder.absolute(), args.faults, args.seed, kinds)
    for kind in kinds:
        print(f"{kind:16} survived {tried[kind] - failed[kind]} of {tried[kind]}")
    print(f"{'all':16} survived {tried.total() - failed.total()} of {tried.total()}")
    sys.exit(bool(failed.total()))


def befall(base: Path, faults: int, seed: int, kinds: list[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each kind befell a run, and how often that was not survived."""
    chance, tried, failed = random.Random(seed), Counter[str](), Counter[str]()
    disk = prepare(base)
    try:
        whole = Run(base, disk / "whole", chance)
        if whole.start().wait():
            sys.exit(f"the undisturbed run failed: {whole.said}")
        expected, number = curve(whole), 1
        run = Run(base, disk / "run-1", chance)
        coming: list[str] = []
        while tried.total() < faults:
            coming = coming or chance.sample(kinds, len(kinds))
            if not strike(run, coming[-1], tried, failed):
                conclude(run, expected, failed)
                number += 1
                run = Run(base, disk / f"run-{number}", chance)
                continue
            coming.pop()
        run.start()
        conclude(run, expected, failed)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", str(disk)], check=False)
    return tried, failed


def strike(run: Run, kind: str, tried: Counter[str], failed: Counter[str]) -> bool:
    """Start the run and let a fault befall it; False if the run was done before."""
    process = run.start()
    if kind != "kill_at_start" and not run.wait_for_steps():
        return False
    tried[kind] += 1
    before = time.monotonic()
    try:
        KINDS[kind](run)
        how = "ok"
    except Bad as bad:
        how = str(bad)
        failed[kind] += 1
        if process.poll() is None:
            kill_all(run)
    else:
        run.befallen.append(kind)
    print(f"{tried.total():3} {kind} {time.monotonic() - before:.0f} s {run.folder.name}: {how}", flush=True)
    return True


def conclude(run: Run, expected: dict[int, float], failed: Counter[str]) -> None:
    """Wait for the end of a run whose faults are over, and compare its curve."""
    assert run.process is not None
    code = run.process.wait()
    if code == WRONG_REQUEST and "is complete" in run.said:  # a fault came after its last step
        code = 0
    if (code, curve(run)) != (0, expected):
        print(f"{run.folder}: ended with {code}, another curve after {run.befallen}: {run.said[-300:]}")
        failed.update(run.befallen)


def prepare(base: Path) -> Path:
    """The corpus, the run file, and the disk for runs."""
    if base.exists():
        sys.exit(f"{base} is there from before: remove it, or name another folder")
    (base / "disk").mkdir(parents=True)
    if os.geteuid() == 0:
        command = ["mount", "-t", "tmpfs", "-o", "size=48m", "faults", str(base / "disk")]
        subprocess.run(command, check=True)
    text = base / "text.txt"
    text.write_text("".join(f"{n} squared is {n * n}.\n" for n in range(20000)))
    words = ["--input", str(text), "--output", str(base / "corpus" / "numbers"), "--tokenizer", "byte"]
    subprocess.run([FRONTRUNNER, "data", "prepare", *words], check=True, stdout=subprocess.DEVNULL)
    (base / "run.yaml").write_text(RUN.format(corpus=base / "corpus" / "numbers"))
    return base / "disk"


def curve(run: Run) -> dict[int, float]:
    """Loss by step, by the last record of each."""
    lines = run.records.read_text().splitlines() if run.records.exists() else []
    steps = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return {record["step"]: record["loss"] for record in steps}


if __name__ == "__main__":
    main()
