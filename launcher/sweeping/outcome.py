"""The outcome of a trial, from its run folder: its objective, or its kind of failure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.yaml_tree import show_path
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY
from frontrunner.run_folder import failures
from frontrunner.run_folder.endings import TO_BE_CONTINUED, WRONG_REQUEST
from frontrunner.run_folder.record_reader import last_records, last_start, last_step, steps_of
from frontrunner.run_folder.steady import steady_median

#: Steps before a running trial is judged.
FEWEST_STEPS = 4
CRASH, TIME_OUT, NODE_FAILURE, REJECTION = "crash", "time_out", "node_failure", "rejection"
#: Slurm's states of jobs that ended (squeue's manual, JOB STATE CODES).
_BY_STATE = {
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    "TIMEOUT": TIME_OUT,
    "DEADLINE": TIME_OUT,
    "NODE_FAIL": NODE_FAILURE,
    "BOOT_FAIL": NODE_FAILURE,
    "PREEMPTED": NODE_FAILURE,
}


@dataclass(frozen=True)
class Ended:
    """How a trial's processes ended: exit ``code`` of the run (None: unknown), ``state`` and ``nodes`` of the
    Slurm job."""

    code: int | None = None
    state: str = ""
    nodes: str = ""


def objective(run_dir: Path, key: str) -> float | None:
    """The median of a figure over the steady steps; None if there are none."""
    return steady_median(steps_of(last_start(last_records(run_dir))), key)


def so_far(run_dir: Path, key: str) -> float | None:
    """The objective of a running trial; None in its first steps."""
    return objective(run_dir, key) if last_step(run_dir) >= FEWEST_STEPS else None


def failure(run_dir: Path, ended: Ended) -> str | None:
    """Why a trial failed; None if it finished."""
    if ended.code == 0:
        return None
    if ended.state in _BY_STATE:
        return _BY_STATE[ended.state]
    if ended.code == TO_BE_CONTINUED:
        return TIME_OUT
    if failures.out_of_memory(_said(run_dir)):
        return OUT_OF_MEMORY
    if ended.code == WRONG_REQUEST:
        return REJECTION
    # A process without an exit code was on a node that went away.
    return NODE_FAILURE if ended.code is None and not ended.state else CRASH


def last_words(run_dir: Path) -> str:
    """The last error line of its launcher, or else the folder to inspect."""
    log = run_dir.with_name(f"{run_dir.name}.log")
    lines = [
        line.strip()
        for line in failures.end_of_file(log).splitlines()
        if line.strip() and not line.startswith("run folder")
    ]
    return lines[-1] if lines else f"see {show_path(run_dir)}"


def _said(run_dir: Path) -> str:
    """The ends of all logs of the ranks and the launcher."""
    files = [*run_dir.glob("errors/*.txt"), *run_dir.glob("logs/*"), run_dir.with_name(f"{run_dir.name}.log")]
    return "\n".join(failures.end_of_file(file) for file in files)
