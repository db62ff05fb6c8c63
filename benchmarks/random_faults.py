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
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.run_folder.endings import TO_BE_CONTINUED, WRONG_REQUEST

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
LIMIT_S = 60.0
_YEARS_S = 10 * 365 * 86400
FRONTRUNNER = str(Path(sys.executable).with_name("frontrunner"))


class Bad(Exception):
    """A fault was not survived; the message says how."""


@dataclass
class Run:
    """One run, and what befalls it; ``folder`` may move."""

    base: Path
    folder: Path
    chance: random.Random
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None
    befallen: list[str] = field(default_factory=list)

    @property
    def records(self) -> Path:
        return self.folder / "records.jsonl"

    @property
    def said(self) -> str:
        """What the newest start has said."""
        return self.log.read_text(errors="replace").strip()

    @property
    def log(self) -> Path:
        return self.base / f"{self.folder.name.split('.')[0]}-{self.starts}.log"

    def start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        begun = (self.folder / "run.yaml").exists()
        run = [str(self.folder)] if begun else [str(self.base / "run.yaml"), "--run-dir", str(self.folder)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [FRONTRUNNER, "train", *run], stdout=subprocess.DEVNULL, stderr=log
            )
        return self.process

    def ranks(self) -> list[int]:
        server = children(self.process.pid) if self.process else []
        return children(server[0]) if server else []

    def wait_for_steps(self) -> bool:
        """Until this start has taken a step, and a moment longer; False if it ended before."""
        assert self.process is not None
        size = self.records.stat().st_size if self.records.exists() else 0
        while self.process.poll() is None and not self._grown(size):
            time.sleep(0.02)
        time.sleep(self.chance.uniform(0, 1.0))
        return self.process.poll() is None

    def _grown(self, size: int) -> bool:
        if not self.records.exists():
            return False
        with self.records.open("rb") as file:
            file.seek(size)
            return b'"kind": "step"' in file.read()

    def ended(self, *codes: int) -> None:
        """Wait for the end, with one of these exit codes and no process left."""
        assert self.process is not None
        ranks = self.ranks()
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Bad(f"did not end within {LIMIT_S:.0f} s") from None
        wait_for_end(ranks)
        if codes and code not in codes:
            raise Bad(f"ended with {code}, not one of {codes}: {self.said[-300:]}")

    def refused(self, *words: str) -> None:
        """A start now ends soon, with one line that holds these words and a fix."""
        self.start()
        self.ended(1, WRONG_REQUEST)
        if "Traceback" in self.said or not all(word in self.said for word in (*words, ";")):
            raise Bad(f"was not refused by a line with a fix: {self.said[-300:]}")

    def stop(self) -> None:
        """Ask for a stop after a checkpoint."""
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        self.ended(TO_BE_CONTINUED, 0)


def kill_rank(run: Run) -> None:
    with suppress(ProcessLookupError, IndexError):
        os.kill(run.chance.choice(run.ranks()), signal.SIGKILL)
    run.ended(1, 0)


def kill_parent(run: Run) -> None:
    assert run.process is not None
    ranks = run.ranks()
    run.process.kill()
    run.process.wait()
    wait_for_end(ranks)


def kill_all(run: Run) -> None:
    assert run.process is not None
    everyone = [*run.ranks(), *children(run.process.pid), run.process.pid]
    for pid in everyone:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    run.process.wait()


def kill_at_start(run: Run) -> None:
    assert run.process is not None
    time.sleep(run.chance.uniform(0, 5))
    kill_parent(run)


def hang(run: Run) -> None:
    with suppress(ProcessLookupError, IndexError):
        os.kill(run.chance.choice(run.ranks()), signal.SIGSTOP)
    run.ended(1, 0)


def stop_twice(run: Run) -> None:
    assert run.process is not None
    run.process.send_signal(signal.SIGUSR1)
    time.sleep(run.chance.uniform(0, 0.5))
    run.process.send_signal(signal.SIGUSR1)
    run.ended(TO_BE_CONTINUED, 130, 0)


def full_disk(run: Run) -> None:
    filler = run.folder.parent / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    try:
        run.ended(1)
        run.refused("No space left")
    finally:
        filler.unlink()


def read_only(run: Run) -> None:
    run.stop()  # Linux refuses as long as a file is open for writing
    disk = str(run.folder.parent)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        run.refused("Read-only file system")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def moved(run: Run) -> None:
    run.stop()
    place = run.folder.with_name(f"{run.folder.name}.moved")
    run.folder.rename(place)
    run.folder = place


def two_starts(run: Run) -> None:
    command = [FRONTRUNNER, "train", str(run.folder)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    taken = "another process is running in this folder; wait" in second.stderr
    if second.returncode != WRONG_REQUEST or not taken:
        raise Bad(f"a second start ended with {second.returncode}: {second.stderr[-300:]}")
    if run.process is not None and run.process.poll() is None:
        run.stop()


def corpus_gone(run: Run) -> None:
    run.stop()
    corpus = run.base / "corpus"
    corpus.rename(run.base / "gone")
    try:
        run.refused("cannot read", "corpus")
    finally:
        (run.base / "gone").rename(corpus)


def clock_was_ahead(run: Run) -> None:
    """As if the clock had been years ahead when the records were written."""
    run.stop()
    lines = [json.loads(line) for line in run.records.read_text().splitlines()]
    for record in lines:
        if "time" in record:
            record["time"] += _YEARS_S
    run.records.write_text("".join(json.dumps(record) + "\n" for record in lines))
    later = time.time() + _YEARS_S
    for path in (run.folder, *run.folder.rglob("*")):
        os.utime(path, (later, later))


KINDS: dict[str, Callable[[Run], None]] = {
    kind.__name__: kind
    for kind in (
        kill_rank,
        kill_parent,
        kill_all,
        kill_at_start,
        hang,
        stop_twice,
        full_disk,
        read_only,
        moved,
        two_starts,
        corpus_gone,
        clock_was_ahead,
    )
}
NEED_ROOT = ("full_disk", "read_only")


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


def children(pid: int) -> list[int]:
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def wait_for_end(ranks: list[int]) -> None:
    """A killed process gives back its memory before it is gone."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in ranks if alive(pid)]:
        if time.monotonic() > deadline:
            raise Bad(f"left the processes {left}")
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


if __name__ == "__main__":
    main()
