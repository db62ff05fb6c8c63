"""What became of a trial, from its run folder: its objective, or which kind of failure ended it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.yaml_tree import show_path
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY
from frontrunner.run_folder.endings import TO_BE_CONTINUED, WRONG_REQUEST
from frontrunner.run_folder.record_reader import last_records, last_step, steps_of
from frontrunner.run_folder.steady import steady_median

#: A trial that runs is not judged before it has taken so many steps.
FEWEST_STEPS = 4
CRASH, TIME_OUT, NODE_FAILURE, REJECTION = "crash", "time_out", "node_failure", "rejection"
_NO_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|DefaultCPUAllocator|[Cc]annot allocate|can't allocate memory"
    r"|std::bad_alloc|Killed process|oom[-_ ]?kill|when memory runs out",
    re.IGNORECASE,
)
#: Slurm's words for jobs that ended (squeue's manual, JOB STATE CODES).
_BY_STATE = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "TIMEOUT": TIME_OUT,
    "DEADLINE": TIME_OUT,
    "NODE_FAIL": NODE_FAILURE,
    "BOOT_FAIL": NODE_FAILURE,
    "PREEMPTED": NODE_FAILURE,
}
_LONGEST_LOG = 200_000


@dataclass(frozen=True)
class Ended:
    """How a trial's processes ended: ``code`` of the run (None: it left none), ``state`` and ``nodes`` of a
    job as Slurm has them."""

    code: int | None = None
    state: str = ""
    nodes: str = ""


def objective(run_dir: Path, key: str) -> float | None:
    """The median of a record's figure over the steady steps; None where there are none."""
    return steady_median(steps_of(last_records(run_dir)), key)


def so_far(run_dir: Path, key: str) -> float | None:
    """The objective of a trial that runs; None in its first steps."""
    return objective(run_dir, key) if last_step(run_dir) >= FEWEST_STEPS else None


def failure(run_dir: Path, ended: Ended) -> str | None:
    """Why a trial failed; None where it came to its end."""
    if ended.code == 0:
        return None
    if ended.state in _BY_STATE:
        return _BY_STATE[ended.state]
    if ended.code == TO_BE_CONTINUED:
        return TIME_OUT
    if _NO_MEMORY.search(_said(run_dir)):
        return OUT_OF_MEMORY
    if ended.code == WRONG_REQUEST:
        return REJECTION
    # A process that could not even say how it ended was on a machine that went away.
    return NODE_FAILURE if ended.code is None and not ended.state else CRASH


def last_words(run_dir: Path) -> str:
    """The last line that its launcher has said of what went wrong, or else the folder to look into."""
    log = run_dir.with_name(f"{run_dir.name}.log")
    text = log.read_bytes()[-_LONGEST_LOG:].decode(errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("run folder")]
    return lines[-1] if lines else f"see {show_path(run_dir)}"


def _said(run_dir: Path) -> str:
    """The ends of all that the ranks and the launcher have written."""
    files = [*run_dir.glob("errors/*.txt"), *run_dir.glob("logs/*"), run_dir.with_name(f"{run_dir.name}.log")]
    texts = []
    for file in files:
        if file.is_file():
            texts.append(file.read_bytes()[-_LONGEST_LOG:].decode(errors="replace"))
    return "\n".join(texts)
