"""``frontrunner status``: the state of runs, from Slurm and their files."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.units import duration_text, number_text
from frontrunner.launcher.display.terminal import say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from frontrunner.launcher.runs import Runs

_EVERY_S = 10.0
#: Runs that are over and still shown, if no folder is named.
_RECENT = 20


def status(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FOLDER]...", help="Run folders, or folders that contain them [default: runs]."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 10 seconds.")] = False,
    every_run: Annotated[
        bool, typer.Option("--all", help=f"Show all runs, not only the {_RECENT} newest that are over.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all runs.")] = False,
) -> None:
    """Show the state of runs, submitted or on this machine: step, loss, speed, time left, why they failed."""
    from frontrunner.launcher.errors import report
    from frontrunner.launcher.runs import Runs, find
    from frontrunner.slurm.errors import SlurmFailed

    places = folders or [Path("runs")]
    _check(folders or [])
    runs = Runs(find(places), os.environ)
    if as_json:
        typer.echo(json.dumps({"runs": [runs.row(run_dir) for run_dir in runs.run_dirs]}))
    elif not watch:
        _print(runs, every_run)
    else:
        _watch(places, every_run)
    if runs.problem is not None:
        code = report(runs.problem, as_json=False)
        if isinstance(runs.problem, SlurmFailed):
            raise typer.Exit(code)


def _check(folders: Sequence[Path]) -> None:
    """SpecError for folders that are not there: "no runs" would be a lie about a misspelt name."""
    from frontrunner.configs.errors import SpecError, Violation

    missing = [folder for folder in folders if not folder.is_dir()]
    if missing:
        fix = "name a run folder, or a folder of runs"
        raise SpecError([Violation("", str(folder), "is not a folder", fix) for folder in missing])


def _print(runs: Runs, every_run: bool) -> None:
    from frontrunner.launcher.display.screen import Screen

    if not runs.run_dirs:
        say("no runs here; `frontrunner train` and `submit` make them in the folder runs")
        return
    Screen().lines(shown(runs, every_run))


def _watch(places: Sequence[Path], every_run: bool) -> None:
    from rich.console import Group
    from rich.live import Live

    from frontrunner.launcher.display.screen import Screen, redraws
    from frontrunner.launcher.runs import Runs, find

    while not redraws(sys.stdout):
        _print(Runs(find(places), os.environ), every_run)
        time.sleep(_EVERY_S)
    with Live(console=Screen(), auto_refresh=False, screen=False) as live:
        while True:
            live.update(Group(*shown(Runs(find(places), os.environ), every_run)), refresh=True)
            time.sleep(_EVERY_S)


def shown(runs: Runs, every_run: bool = False) -> list[RenderableType]:
    """Some lines a run: what it is and how far, then why, then what to type. They fit 80 columns.

    Of runs that are over, only the newest, unless all are asked for.
    """
    from rich.text import Text

    old = set() if every_run else {run_dir for run_dir in runs.run_dirs[:-_RECENT] if runs.over(run_dir)}
    lines: list[RenderableType] = []
    for run_dir in runs.run_dirs:
        lines += [] if run_dir in old else _lines(runs.row(run_dir))
    if old:
        lines.append(Text(f"and {len(old):,} older runs that are over: --all shows them", style="dim"))
    return lines


_STYLES = {"failed": "bold red", "finished": "green", "cancelled": "yellow", "stopped": "yellow"}


def _lines(row: dict[str, Any]) -> list[RenderableType]:
    from rich.text import Text

    state = row["state"]
    first = Text.assemble((state, _STYLES.get(state, "bold")), "  ", row["run_dir"])
    parts = [f"step {row['step']} of {row['steps'] if row['steps'] is not None else '?'}"]
    if row["loss"] is not None:
        parts.append(f"loss {number_text(row['loss'], '.4f')}")
    if row["tokens_per_s_per_device"] is not None:
        parts.append(f"{number_text(row['tokens_per_s_per_device'], ',.4g')} tokens/s per device")
    if row["eta_s"] and state in ("running", "saving"):
        parts.append(f"{duration_text(row['eta_s'])} left")
    if row["job_id"]:
        many = f", segment {row['segment']} of {row['segments']}" if row["segments"] > 1 else ""
        parts.append(f"job {row['job_id']}{many}")
    told = [Text(f"    {', '.join(parts)}")]
    told += [Text(f"    {text}", style="red") for text in (row["last_error"],) if text]
    told += [Text(f"    {text}") for text in (row["reason"],) if text]
    told += [Text(f"    {line}") for line in row["advice"]]
    if row["next"] and state in ("failed", "stopped", "cancelled"):
        told.append(Text(f"    to go on: {row['next']}", style="dim"))
    return [first, *told]
