"""``frontrunner cancel``: cancel a submitted run and its remaining segments."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from frontrunner.launcher.display.terminal import tell


def cancel(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Run folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Cancel submitted runs. `frontrunner submit RUN_DIR` continues one later."""
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.launcher.runs import Runs
    from frontrunner.run_folder import jobs
    from frontrunner.slurm.client import Slurm

    lasts = {folder: jobs.read(folder).last if folder.is_dir() else None for folder in run_dirs}
    wrong = [folder for folder, last in lasts.items() if last is None]
    if wrong:
        constraint, fix = "is not the folder of a submitted run", "list runs with `frontrunner status`"
        raise SpecError([Violation("", str(folder), constraint, fix) for folder in wrong])
    slurm = Slurm(os.environ)
    runs = Runs(run_dirs, os.environ)
    answer = []
    for folder in run_dirs:
        current = jobs.read(folder).last
        assert current is not None
        state = runs.state(folder)
        over = not state.active and runs.view(folder).phase == "ended"
        if not over:
            jobs.append(folder, "cancelled")  # first, or the job's last line could submit a segment
            current = jobs.read(folder).last or current
            slurm.cancel(current.job_id)
        answer.append(
            {
                "run_dir": str(folder),
                "job_id": current.job_id,
                "cancelled": not over,
                "state": state.state if over else "cancelled",
            }
        )
    if as_json:
        typer.echo(json.dumps({"runs": answer}))
        return
    for run in answer:
        done = "is cancelled" if run["cancelled"] else f"has ended: the run is {run['state']}"
        tell(f"job {run['job_id']} of {run['run_dir']} {done}")
