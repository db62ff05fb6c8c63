"""``frontrunner cancel``: cancel a submitted run and its remaining segments."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def cancel(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Run folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Cancel submitted runs. `frontrunner submit RUN_DIR` continues one later."""
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.run_folder import jobs
    from frontrunner.slurm.client import Slurm

    lasts = {folder: jobs.read(folder).last for folder in run_dirs}
    wrong = [folder for folder, last in lasts.items() if last is None]
    if wrong:
        constraint, fix = "is not the folder of a submitted run", "list runs with `frontrunner status`"
        raise SpecError([Violation("", str(folder), constraint, fix) for folder in wrong])
    slurm = Slurm(os.environ)
    answer = []
    for folder, last in lasts.items():
        assert last is not None
        jobs.append(folder, "cancelled")  # first, or the job's last line could submit a segment
        current = jobs.read(folder).last
        assert current is not None
        slurm.cancel(current.job_id)
        answer.append({"run_dir": str(folder), "job_id": current.job_id})
    if as_json:
        typer.echo(json.dumps({"runs": answer}))
    else:
        typer.echo("\n".join(f"job {run['job_id']} of {run['run_dir']} is cancelled" for run in answer))
