"""Kinds of faults that befall a run in ``random_faults.py``, and the run that they befall."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.run_folder.endings import TO_BE_CONTINUED, WRONG_REQUEST

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

    def ended(self, *codes: int) -> int:
        """Wait for the end, with one of these exit codes and no process left; the exit code."""
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
        return code

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
        if run.ended(1, 0):  # 0: its last step came before
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
    over = run.process is not None and run.process.poll() is not None and "is complete" in second.stderr
    taken = "another process is running in this folder; wait" in second.stderr or over
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
