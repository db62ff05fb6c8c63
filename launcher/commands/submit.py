"""``frontrunner submit``: submit a run to Slurm, after checking the site's rules."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.launcher.display.terminal import say, tell

if TYPE_CHECKING:
    from frontrunner.slurm.job import JobSpec
    from frontrunner.slurm.policy import Schedule


def submit(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run file, a preset, or the folder of a run to continue.")
    ],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Number of nodes (default: the file's).")] = None,
    time: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Wall time of the whole run, e.g. 2:00:00.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to charge.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The run folder [default: runs/NAME-DATE-TIME].")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job script and a summary, do not submit.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Submit even if the planner predicts out of memory.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")
    ] = False,
) -> None:
    """Submit a run to Slurm, or print its job script."""
    from frontrunner.launcher import submission
    from frontrunner.run_folder.folder import check_unused
    from frontrunner.slurm.script import render

    called_in = Path.cwd()
    continued = submission.run_folder_of(run)
    if continued:
        submission.go_where_it_ran(continued)
    overrides = _overrides(override or (), nodes, time, account)
    document = submission.resolve(run, continued, overrides, os.environ)
    folder = continued or (run_dir or submission.default_folder(document.spec)).absolute()
    if continued is None:
        check_unused(folder, command="submit")
    job, schedule, notes = submission.prepare(
        document, folder, force=force, continues=continued is not None, preview=dry_run
    )
    for note in notes:
        say(note)
    if dry_run:
        from frontrunner.launcher.display.job_summary import summary

        for text in summary(document.spec, schedule, submission.planned(document.spec), folder):
            say(*text.splitlines())
        script = render(job)
        answer = {"job_id": None, "run_dir": str(folder), "script": script}
        typer.echo(json.dumps(answer) if as_json else script, nl=as_json)
        return
    job_id, script = submission.send(document, job, schedule, folder, new=continued is None)
    if as_json:
        typer.echo(json.dumps({"job_id": job_id, "run_dir": str(folder), "script": script}))
    else:
        tell(*_next_steps(job_id, job, schedule, os.path.relpath(folder, called_in)))


def _overrides(given: Sequence[str], nodes: int | None, time: str | None, account: str | None) -> list[str]:
    """The options as overrides; strings are quoted, so that a numeric account stays text."""
    own = [f"nodes={nodes}"] if nodes is not None else []
    own += [f"slurm.time_limit={json.dumps(time)}"] if time is not None else []
    own += [f"slurm.account={json.dumps(account)}"] if account is not None else []
    return [*given, *own]


def _next_steps(job_id: str, job: JobSpec, schedule: Schedule, folder: str) -> list[str]:
    import shlex

    from frontrunner.configs.slurm import clock

    where = f" in {job.partition}" if job.partition else ""
    chain = ""
    if schedule.segments > 1:
        chain = f", the first of at most {schedule.segments} segments ({clock(schedule.total_s)} in all)"
    shown = shlex.quote(folder)
    return [
        f"job {job_id}: {job.nodes} nodes{where} for {clock(job.time_s)}{chain}",
        f"  frontrunner status {shown}",
        f"  frontrunner logs --follow {shown}",
        f"  frontrunner cancel {shown}",
    ]
