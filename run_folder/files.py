"""The names of all files in the folder of a run. Nothing else spells them."""

from __future__ import annotations

from pathlib import Path

#: The run, resolved; what it recorded; the jobs that it was submitted as, and their script.
SPEC, RECORDS, JOBS, SCRIPT = "run.yaml", "records.jsonl", "jobs.jsonl", "job.sh"
#: Held as long as a process trains in the folder.
LOCK = ".lock"
CHECKPOINTS, MANIFEST = "checkpoints", "manifest.json"
ERRORS, LOGS, STACKS = "errors", "logs", "stacks"
#: What `frontrunner doctor` leaves in the folder of its own runs.
PROBE, HANGS = "probe.json", "hangs"


def errors_file(run_dir: Path, rank: int) -> Path:
    """Why a rank failed."""
    return run_dir / ERRORS / f"rank-{rank}.txt"


def explained_file(run_dir: Path) -> Path:
    """Made by the rank that tells the user why the run failed, so that no other does."""
    return run_dir / ERRORS / "explained"


def log_file(run_dir: Path, rank: int) -> Path:
    """What a rank and its libraries print."""
    return run_dir / LOGS / f"rank-{rank}.log"


def launcher_log(run_dir: Path) -> Path:
    """What the process prints that starts the ranks on this machine."""
    return run_dir / LOGS / "launcher.log"


def job_log(run_dir: Path, job: str) -> Path:
    """What a job prints; ``job`` is its number or Slurm's pattern for it."""
    return run_dir / LOGS / f"job-{job}.log"


def job_logs(run_dir: Path) -> list[Path]:
    """What the jobs of a run have printed, oldest first."""
    found = (run_dir / LOGS).glob("job-*.log")
    return sorted(found, key=lambda path: (path.stat().st_mtime, path))


def stacks_file(run_dir: Path, rank: int) -> Path:
    """Where a rank was when it hung."""
    return run_dir / STACKS / f"rank-{rank}.txt"


def holds_run(folder: Path) -> bool:
    """Whether this is the folder of a run, begun or only submitted."""
    return (folder / SPEC).is_file()
