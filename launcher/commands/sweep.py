"""``frontrunner sweep``: search a space of layouts with short trials."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from frontrunner.launcher.display import terminal
from frontrunner.launcher.errors import try_import
from frontrunner.launcher.outputs import check_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import RenderableType

    from frontrunner.configs.load_sweep import SweepDocument
    from frontrunner.launcher.sweeping.backends import Backend
    from frontrunner.launcher.sweeping.report import Report
    from frontrunner.launcher.sweeping.space import Point

EXTRA = "sweep"
app = typer.Typer(
    no_args_is_help=True, help="Search a space of layouts with short trials.", rich_markup_mode=None
)
SweepFile = Annotated[str, typer.Argument(metavar="SWEEP.yaml", help="A sweep file or preset.")]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of the trials [default: sweeps/NAME].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")]


@app.command()
def run(
    sweep: SweepFile,
    on: Annotated[
        Literal["slurm", "local"], typer.Option(help="Submit trials to Slurm, or train on this machine.")
    ] = "slurm",
    folder: Folder = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the space and the largest cost, and run nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try layouts until the budget is used up. Run it again to resume.

    The exit code is 1 if no trial completed.
    """
    try_import("optuna", EXTRA)
    try_import("sklearn", EXTRA)
    from frontrunner.configs.load_sweep import load_sweep
    from frontrunner.launcher.sweeping.controller import Controller, opened
    from frontrunner.launcher.sweeping.report import build
    from frontrunner.launcher.sweeping.samplers import strategy
    from frontrunner.launcher.sweeping.space import common_batch, points, size
    from frontrunner.launcher.sweeping.view import ranking

    document = load_sweep(sweep)
    check_outputs({}, {"--folder": folder})
    where = folder or _usual_folder(document)

    def say(line: str) -> None:
        terminal.say(line)

    reasons: Counter[tuple[str, str]] = Counter()
    known = points(document, reasons)
    if (batch := common_batch(document)) is not None:
        say(f"training.global_batch_size is not set: all trials use {batch}, which every layout allows")
    if dry_run:
        _preview(document, known, reasons, as_json)
        return
    backend = _backend(on, document, known)
    chosen = strategy(document, known)
    with opened(where, document) as store:
        say(
            f"{document.spec.name}: {len(known)} of {size(document)} combinations are legal, "
            f"{chosen.removed} cannot fit according to the planner; trials in {where}"
        )
        # Do not query a site's Slurm more often than a user would.
        tick_s = 1.0 if on == "local" else 5.0
        Controller(document, where, known, chosen, backend, store, say, tick_s).run()
        report = build(document, known, store.trials())
    _print(report, as_json, ranking)
    if report.best is None:
        say("no trial completed, so there is no best layout")
        raise typer.Exit(1)


def _preview(
    document: SweepDocument, known: Sequence[Point], reasons: Counter[tuple[str, str]], as_json: bool
) -> None:
    """What `--dry-run` prints: the space, what is left out of it and why, and the largest cost."""
    from frontrunner.configs.slurm import seconds
    from frontrunner.launcher.sweeping.samplers import strategy
    from frontrunner.launcher.sweeping.space import size

    spec, chosen = document.spec, strategy(document, known)
    allowed = len(known) - chosen.removed or len(known)
    trials = min(spec.budget.trials, allowed)
    each = seconds(spec.trial_time) / 3600
    cost = sum(sorted((point.spec.nodes * each for point in known), reverse=True)[:trials])
    cost = min(cost, spec.budget.node_hours or cost)
    answer = {
        "combinations": size(document),
        "legal": len(known),
        "cannot_fit": chosen.removed,
        "refused": [
            {"path": path, "constraint": text, "count": n} for (path, text), n in reasons.most_common()
        ],
        "trials": trials,
        "most_node_hours": cost,
    }
    if as_json:
        typer.echo(json.dumps(answer))
        return
    lines = [
        f"{spec.name}: {len(known)} of {size(document)} combinations are legal; "
        f"{chosen.removed} of them cannot fit according to the planner",
        *(f"  refused {n}: {path}: {text}" for (path, text), n in reasons.most_common(5)),
        f"at most {trials} trials of {spec.trial_time}, {cost:,.1f} node-hours",
    ]
    terminal.tell(*lines)


@app.command()
def status(
    sweep: SweepFile,
    folder: Folder = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh every 10 seconds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the trials of a sweep, also while it is running."""
    from frontrunner.launcher.sweeping.view import progress

    while True:
        _print(_report(sweep, folder, sensitivity=False), as_json, progress)
        if not watch:
            return
        time.sleep(10)


@app.command()
def report(
    sweep: SweepFile,
    folder: Folder = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the ranking as CSV.")] = None,
    best: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the best layout as a run file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the trials and show which keys matter."""
    from frontrunner.launcher.sweeping.view import ranking, write_csv

    try_import("shap", EXTRA)
    check_outputs({"--csv": csv, "--best": best})
    found = _report(sweep, folder, sensitivity=True)
    if csv is not None:
        write_csv(found, csv)
    if best is not None:
        text = found.best_run(best.parent.resolve())
        if text is None:
            from frontrunner.launcher.errors import RunFailed

            raise RunFailed("no trial has completed yet, so there is no best layout to write")
        best.write_text(text, encoding="utf-8")
    _print(found, as_json, ranking)


def _report(sweep: str, folder: Path | None, *, sensitivity: bool) -> Report:
    try_import("optuna", EXTRA)
    try_import("sklearn", EXTRA)
    from frontrunner.configs.load_sweep import load_sweep
    from frontrunner.launcher.sweeping.report import build
    from frontrunner.launcher.sweeping.space import points
    from frontrunner.launcher.sweeping.store import Store

    document = load_sweep(sweep)
    store = Store(folder or _usual_folder(document), document, create=False)
    return build(document, points(document), store.trials(), sensitivity=sensitivity)


def _usual_folder(document: SweepDocument) -> Path:
    from frontrunner.run_folder.folder import as_file_name

    return Path("sweeps") / as_file_name(document.spec.name)


def _backend(on: str, document: SweepDocument, known: Sequence[Point]) -> Backend:
    """The backend of the trials; raises if no trial could run."""
    from frontrunner.launcher.sweeping.backends import Local, OnSlurm, check_submission
    from frontrunner.slurm.client import Slurm

    if on == "slurm":
        slurm = Slurm(os.environ)
        check_submission(slurm, document, known, os.environ)
        return OnSlurm(slurm)
    from frontrunner.launcher.ranks.local import require_torch

    require_torch()
    return Local()


def _print(found: Report, as_json: bool, show: Callable[[Report], list[RenderableType]]) -> None:
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
        return
    from frontrunner.launcher.display.screen import Screen

    Screen().lines(show(found))
