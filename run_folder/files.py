"""The names of all files in a run folder, defined only here."""

from __future__ import annotations

import re
from pathlib import Path

#: The resolved run, its records, its jobs, and their script.
SPEC, RECORDS, JOBS, SCRIPT = "run.yaml", "records.jsonl", "jobs.jsonl", "job.sh"
#: Held as long as a process trains in the folder.
LOCK = ".lock"
CHECKPOINTS, MANIFEST = "checkpoints", "manifest.json"
ERRORS, LOGS, STACKS = "errors", "logs", "stacks"
#: Measured traces of steps.
PROFILES = "profile"
#: Results of `frontrunner doctor` in the folder of its probe.
PROBE, HANGS = "probe.json", "hangs"
#: The parts of a first day, in its folder; when each ended, and the port of its ranks, in the part's own.
PARTS, ENDED, PORT = "parts.json", "ended.json", "meeting-port"
#: The machine with the rates that a first day measured.
MACHINE = "measured.yaml"
#: The name of a file in ``errors``; the group is the rank.
ERRORS_NAME = re.compile(r"rank-([0-9]+)\.txt")


def errors_file(run_dir: Path, rank: int) -> Path:
    """Why a rank failed."""
    return run_dir / ERRORS / f"rank-{rank}.txt"


def explained_file(run_dir: Path) -> Path:
    """Claimed by the one rank that reports why the run failed."""
    return run_dir / ERRORS / "explained"


def log_file(run_dir: Path, rank: int) -> Path:
    """The output of a rank and its libraries."""
    return run_dir / LOGS / f"rank-{rank}.log"


def launcher_log(run_dir: Path) -> Path:
    """The output of the process that starts the ranks on this machine."""
    return run_dir / LOGS / "launcher.log"


def job_log(run_dir: Path, job: str) -> Path:
    """The output of a job; ``job`` is its number or Slurm's pattern for it."""
    return run_dir / LOGS / f"job-{job}.log"


def job_logs(run_dir: Path) -> list[Path]:
    """The output files of a run's jobs, oldest first."""
    found = (run_dir / LOGS).glob("job-*.log")
    return sorted(found, key=lambda path: (path.stat().st_mtime, path))


def stacks_file(run_dir: Path, rank: int) -> Path:
    """Where a rank was when it hung."""
    return run_dir / STACKS / f"rank-{rank}.txt"


def result_file(run_dir: Path, rank: int) -> Path:
    """What a rank measured in a part of a first day."""
    return run_dir / "results" / f"rank-{rank}.json"


def whereabouts_file(run_dir: Path, rank: int) -> Path:
    """What a rank did last in a part of a first day."""
    return run_dir / "whereabouts" / f"rank-{rank}.txt"


def profile_file(run_dir: Path, steps: str, rank: int) -> Path:
    """What ``train --profile`` measured; ``steps`` is ``5`` or ``5-7``."""
    return run_dir / PROFILES / f"steps-{steps}-rank-{rank}.json"


def holds_run(folder: Path) -> bool:
    """Whether this is a run folder, started or only submitted."""
    return (folder / SPEC).is_file()
