"""The folder that holds all of one run: ``run.yaml``, ``records.jsonl``, ``errors/``, ``logs/``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import dump
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.errors import RunFailed
from frontrunner.parallelism.runtime.records import FILE as RECORDS_FILE

SPEC_FILE = "run.yaml"
# Not with Slurm's step: an mpirun in a job starts some ranks inside a step and some outside.
_JOB_IDS = ("PMIX_NAMESPACE", "PALS_APID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT")


def dated(name: str) -> Path:
    """``runs/NAME-DATE-TIME`` for a run started by this process alone."""
    base = Path("runs") / f"{_as_file_name(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 100))]
    return next((path for path in candidates if not path.exists()), base)


def of_job(name: str, env: Mapping[str, str]) -> Path:
    """``runs/NAME-JOB``, the same on every rank of a job without asking; SpecError where no id is known."""
    # torchrun's own default id, which every run shares, is "none".
    job = next((env[key] for key in _JOB_IDS if env.get(key, "none") != "none"), None)
    if job is None:
        constraint = f"the ranks need one folder, and no job's id ({', '.join(_JOB_IDS)}) names it"
        raise SpecError([Violation("--run-dir", None, constraint, "give --run-dir DIR")])
    return Path("runs") / f"{_as_file_name(name)}-{_as_file_name(job)}"


def check_unused(run_dir: Path) -> None:
    """Raise SpecError where the folder holds a run already or is no folder."""
    held = [name for name in (RECORDS_FILE, SPEC_FILE) if (run_dir / name).exists()]
    if held:
        raise _in_use(run_dir, f"already holds a run ({' and '.join(held)})")
    if run_dir.exists() and not run_dir.is_dir():
        raise _in_use(run_dir, "is not a folder")


def create(run_dir: Path, spec: RunSpec) -> None:
    """Make the folder and its ``run.yaml``, which appears whole; of two that try, one gets SpecError."""
    check_unused(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    unfinished = run_dir / f".{SPEC_FILE}.{os.getpid()}"
    try:
        unfinished.write_text(dump(spec), encoding="utf-8")
        os.link(unfinished, run_dir / SPEC_FILE)
    except FileExistsError:
        raise _in_use(run_dir, "already holds a run (run.yaml)") from None
    finally:
        unfinished.unlink(missing_ok=True)


def wait_for(run_dir: Path, limit_s: float) -> None:
    """Wait until rank 0 has made the folder; RunFailed after the limit.

    Raises SpecError where it holds an earlier run: this one's first record needs all ranks.
    """
    records = run_dir / RECORDS_FILE
    if records.exists() and records.stat().st_size:
        raise _in_use(run_dir, f"already holds a run ({RECORDS_FILE})")
    deadline = time.monotonic() + limit_s
    while not (run_dir / SPEC_FILE).exists():
        if time.monotonic() > deadline:
            raise RunFailed(f"rank 0 did not write {run_dir / SPEC_FILE} within {limit_s:.0f} s")
        time.sleep(0.1)


def _as_file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "run"


def _in_use(run_dir: Path, constraint: str) -> SpecError:
    return SpecError(
        [Violation("--run-dir", str(run_dir), constraint, "give another folder, or remove this one")]
    )
