"""``frontrunner status``: submitted runs, from Slurm and their records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.launcher.display.units import duration_text, number_text

if TYPE_CHECKING:
    from rich.table import Table

    from frontrunner.run_folder.jobs import Chain
    from frontrunner.slurm.client import JobState, Slurm

_EVERY_S = 10.0


def status(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...", help="Run folders, or folders that contain them [default: runs]."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 10 seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show state, step, loss, speed and time left of submitted runs."""
    from frontrunner.slurm.client import Slurm

    slurm = Slurm(os.environ)
    if as_json:
        typer.echo(json.dumps({"runs": rows(slurm, find(folders or [Path("runs")]))}))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not watch:
        console.print(table(rows(slurm, find(folders or [Path("runs")]))))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            live.update(table(rows(slurm, find(folders or [Path("runs")]))), refresh=True)
            time.sleep(_EVERY_S)


def find(folders: Iterable[Path]) -> list[Path]:
    """The submitted runs in these folders, newest last."""
    from frontrunner.run_folder.files import JOBS

    found = set()
    for folder in folders:
        found.update([folder] if (folder / JOBS).exists() else [p.parent for p in folder.glob(f"*/{JOBS}")])
    return sorted(found, key=lambda path: ((path / JOBS).stat().st_mtime, path))


def rows(slurm: Slurm, folders: list[Path]) -> list[dict[str, Any]]:
    """The ``--json`` object of each run; ``state`` is from Slurm, or from the run's files."""
    from frontrunner.run_folder import jobs

    chains = [(folder, jobs.read(folder)) for folder in folders]
    states = slurm.states(so_far.last.job_id for _, so_far in chains if so_far.last)
    return [_row(folder, so_far, states) for folder, so_far in chains]


def _row(folder: Path, so_far: Chain, states: dict[str, JobState]) -> dict[str, Any]:
    from frontrunner.configs.load import read_resolved
    from frontrunner.run_folder import files
    from frontrunner.run_folder.record_reader import progress
    from frontrunner.slurm import policy

    spec = read_resolved(folder / files.SPEC)
    last = so_far.last
    job = states.get(last.job_id) if last else None
    state, reason = _state(so_far, job)
    return {
        "run_dir": str(folder),
        "name": spec.name,
        "job_id": last.job_id if last else None,
        "state": state,
        "reason": reason,
        "nodes": job.nodes if job else "",
        "time_left": job.time_left if job else "",
        "segment": last.number if last else 0,
        "segments": policy.schedule(spec).segments,
        **progress(folder, spec.training.steps),
    }


def _state(so_far: Chain, job: JobState | None) -> tuple[str, str]:
    """State and reason: of the active job, or of the run once no job follows."""
    if job and job.active:
        return job.state, "" if job.reason == "None" else job.reason
    last = so_far.last
    if so_far.cancelled:
        return "CANCELLED", "by `frontrunner cancel`"
    if last is not None and last.code == 0:
        return "COMPLETED", ""
    if so_far.verdict:
        return "FAILED", so_far.verdict
    if job:  # it ended before the last line of its script
        hint = "" if job.state == "COMPLETED" else "`frontrunner submit RUN_DIR` continues it"
        return job.state, hint
    return "UNKNOWN", "Slurm no longer lists its job; `frontrunner submit RUN_DIR` continues it"


def table(found: list[dict[str, Any]]) -> Table:
    """A table for people; times as h:mm:ss."""
    from rich.table import Table
    from rich.text import Text

    columns = ("run", "job", "state", "reason", "segment", "step", "loss", "tokens/s per device", "left")
    shown = Table(*columns, box=None, pad_edge=False)
    for row in found:
        cells = [
            row["run_dir"],
            row["job_id"] or "-",
            row["state"].lower(),
            row["reason"],
            f"{row['segment']} of {row['segments']}",
            f"{row['step']} of {row['steps']}",
            number_text(row["loss"], ".4f"),
            number_text(row["tokens_per_s_per_device"], ",.0f"),
            duration_text(row["eta_s"]),
        ]
        shown.add_row(*(Text(cell) for cell in cells))
    return shown
