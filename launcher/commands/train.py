"""``frontrunner train``: starts all ranks on this machine, or is one rank under a launcher."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.launcher.display.terminal import say
from frontrunner.launcher.display.trackers import TrackerName

if TYPE_CHECKING:  # imported when the command runs, so that `--help` stays fast
    from frontrunner.launcher.ranks.request import Request


def train(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN.yaml|RUN_DIR",
            help="A run file or preset, or a run folder to continue.",
        ),
    ],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run folder [default: runs/NAME-DATE-TIME or runs/NAME-JOB]."),
    ] = None,
    tracker: Annotated[
        list[TrackerName] | None, typer.Option(help="Also send the records to this tracker (repeatable).")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(metavar="STEPS", help="Write a trace of these steps for Perfetto, e.g. 5 or 5-7."),
    ] = None,
    profile_rank: Annotated[
        int | None, typer.Option(metavar="R", help="The rank whose steps it shows (default: 0).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")
    ] = False,
) -> None:
    """Train a model, or continue a run from its newest complete checkpoint.

    Alone, this starts all ranks on this machine. Under srun, mpirun or torchrun this process is one rank.
    """
    from frontrunner.launcher.ranks.launched import train_as_rank
    from frontrunner.launcher.ranks.request import Request
    from frontrunner.parallelism.profile_request import parse
    from frontrunner.parallelism.rendezvous import from_environment
    from frontrunner.run_folder import endings

    profiled = parse(profile, profile_rank)
    request = Request(run, override or (), run_dir, tracker or (), as_json, profiled)
    place = from_environment(os.environ)
    if place is not None:
        endings.listen()
    result = _train_here(request) if place is None else train_as_rank(place, request)
    endings.settled()
    if as_json and result is not None:
        print(json.dumps(result))


def _train_here(request: Request) -> dict[str, Any]:
    """Start all ranks on this machine and show their records; returns the ``--json`` object."""
    from frontrunner.launcher.advice import memory_advice
    from frontrunner.launcher.continuing import prospects
    from frontrunner.launcher.display.screen import redraws
    from frontrunner.launcher.display.watch import Watch
    from frontrunner.launcher.errors import RunFailed
    from frontrunner.launcher.ranks.local import launch_again_if_corrupted, require_torch
    from frontrunner.launcher.runs import check_no_job
    from frontrunner.run_folder import failures
    from frontrunner.run_folder import folder as run_folder
    from frontrunner.run_folder.record_reader import Follower

    spec = request.resolve()
    require_torch()
    folder = request.folder or run_folder.dated(spec.name)
    for line in prospects(folder, spec) if request.continues else ():
        say(f"the run {line}")
    output = sys.stderr if request.as_json else sys.stdout
    with (
        run_folder.opened(
            folder, spec, continues=request.continues, check=lambda: check_no_job(folder, os.environ)
        ),
        Watch(folder, spec.training.steps, request.trackers, output, live=redraws(output)) as watch,
    ):
        watch.say(f"{spec.name}: starting {spec.world_size} ranks on this machine; run folder {folder}")
        follower = Follower(folder, from_end=True)

        def on_tick() -> None:
            for record in follower.new_records():
                watch.record(record)

        try:
            launch_again_if_corrupted(folder, spec.world_size, on_tick, watch.say, request.profile)
        except RunFailed as error:
            if not failures.out_of_memory(str(error)):
                raise
            raise RunFailed("\n".join([str(error), "", *memory_advice(spec)])) from None
    return watch.finish()
