"""``frontrunner logs``: the output of a submitted run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

_EVERY_S = 1.0


def logs(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run folder.")],
    rank: Annotated[
        int | None, typer.Option(help="Print the log of this rank, not the jobs' output.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing while the run is active.")
    ] = False,
    lines: Annotated[int | None, typer.Option(help="Print only the last N lines.")] = None,
) -> None:
    """Print the output of all jobs of a run, oldest first, or of one rank."""
    from frontrunner.run_folder import files
    from frontrunner.run_folder.jobs import read

    wanted = files.job_logs(run_dir) if rank is None else [files.log_file(run_dir, rank)]
    if rank is not None and not wanted[0].exists() or not read(run_dir).segments:
        _refuse(run_dir, rank)
    text = b"".join(path.read_bytes() for path in wanted)
    shown = text if lines is None else b"".join(text.splitlines(keepends=True)[-lines:] if lines else [])
    _write(shown)
    if follow:
        _follow(run_dir, {path: path.stat().st_size for path in wanted}, rank)


def _follow(run_dir: Path, read_so_far: dict[Path, int], rank: int | None) -> None:
    """Print new output, also of later segments, until the run has no job left."""
    from frontrunner.run_folder import files
    from frontrunner.run_folder.jobs import read
    from frontrunner.slurm.client import Slurm

    slurm = Slurm(os.environ)
    asked_s = 0.0
    alive = True
    while alive:
        if time.monotonic() - asked_s > 10 * _EVERY_S:
            last = read(run_dir).last
            state = slurm.states([last.job_id]).get(last.job_id) if last else None
            alive, asked_s = bool(state and state.active), time.monotonic()
        for path in files.job_logs(run_dir) if rank is None else list(read_so_far):
            with path.open("rb") as file:
                file.seek(read_so_far.get(path, 0))
                _write(file.read())
                read_so_far[path] = file.tell()
        time.sleep(_EVERY_S if alive else 0)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _refuse(run_dir: Path, rank: int | None) -> None:
    from frontrunner.configs.errors import SpecError, Violation

    if rank is None:
        constraint, fix = "is not the folder of a submitted run", "list runs with `frontrunner status`"
    else:
        constraint, fix = f"has no log of rank {rank}", "omit --rank for the jobs' output"
    raise SpecError([Violation("", str(run_dir), constraint, fix)])
