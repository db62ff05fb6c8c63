"""``frontrunner doctor``: find problems on a cluster before a run starts, and measure a new machine."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.run_folder import files
from frontrunner.run_folder import folder as run_folder

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.launcher.nodes.diagnosis import Finding
    from frontrunner.parallelism.rendezvous import Rendezvous

PROBE = "frontrunner.parallelism.runtime.probe:probe"
_POLL_S = 5.0
_JOB_TIME = "15m"


def doctor(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="A run file, a preset, or the folder of an earlier probe."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="Probe this many nodes in a short job, with the run's layout.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to charge for that job.")] = None,
    first_day: Annotated[
        bool,
        typer.Option(
            "--first-day",
            help="Measure the devices of a node in ten minutes: here, or with --nodes 1 in a job. "
            "Without RUN, a model that fits.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")
    ] = False,
) -> None:
    """Check for problems before a run: on this node, and with --nodes also on compute nodes.

    --first-day measures a node in under ten minutes: kernels, rates, streams, a step of each engine,
    collectives and memory, and writes a machine file for `plan --machine`.

    The exit code is 1 if there is an error. Faulty nodes are added to runs/exclude-MACHINE.txt, and `submit`
    excludes them.
    """
    from frontrunner.parallelism.rendezvous import from_environment

    overrides = [*(override or [])]
    overrides += [f"slurm.account={json.dumps(account)}"] if account is not None else []
    folder = Path(run) if run is not None else None
    if folder is not None and files.holds_run(folder):
        place = from_environment(os.environ)
        if place is not None:
            _be_rank(folder.absolute(), place)
        if (folder / files.PARTS).exists():
            _tell_first_day(folder, as_json)
        else:
            _tell(*read_probe(folder), as_json)
    elif first_day:
        _first_day(run, overrides, nodes, as_json)
    elif run is None:
        fix = "name a run file or a preset, or give --first-day"
        raise SpecError([Violation("RUN", None, "is missing", fix)])
    else:
        overrides += [f"nodes={nodes}"] if nodes is not None else []
        _tell(*_examine(run, overrides, nodes), as_json)


def _be_rank(folder: Path, place: Rendezvous) -> None:
    """Be one rank of a job's probe or first day; does not return."""
    from frontrunner.launcher.first_day import supervise
    from frontrunner.launcher.ranks.launched import set_environment
    from frontrunner.launcher.ranks.rank import run_rank

    first_day = (folder / files.PARTS).exists()
    if first_day:
        set_environment(place, place.world_size)
    os._exit(run_rank(supervise.TARGET if first_day else PROBE, folder, place))


def _first_day(run: str | None, overrides: list[str], nodes: int | None, as_json: bool) -> None:
    """Measure a node here or in a job, and report."""
    from frontrunner.launcher.first_day import start
    from frontrunner.launcher.nodes.login_node import look_around

    if nodes not in (None, 1):
        raise SpecError([Violation("--nodes", nodes, "is not 1: a first day measures one node", "use 1")])
    day = start.plan(run, overrides, as_job=nodes is not None)
    if nodes is None:
        folder = start.measure_here(day)
    else:
        found = look_around(day.spec, os.environ)
        if any(finding.severity == "error" for finding in found):
            _tell(found, day.spec, as_json)  # and end
        for finding in found:
            say(f"{finding.severity}: {finding.level}: {finding.message}; {finding.fix}")
        folder = run_folder.dated(start.NAME).absolute()
        start.create(folder, day)
        _run_as_job(day.spec, folder, "measures one node")
    start.keep_machine(folder)
    _tell_first_day(folder, as_json)


def _tell_first_day(folder: Path, as_json: bool) -> None:
    """Print a first day's report, and exit with 1 if a part failed."""
    from frontrunner.launcher.display.screen import Screen
    from frontrunner.launcher.first_day import start, view

    answer = start.report(folder)
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        Screen().lines(view.parts(answer))
    if any(part["verdict"] == "failed" for part in answer["parts"]):
        raise typer.Exit(1)


def read_probe(folder: Path) -> tuple[list[Finding], RunSpec]:
    """The findings of a probe; RunFailed if it left no results."""
    from frontrunner.configs.load import read_resolved
    from frontrunner.launcher.errors import RunFailed
    from frontrunner.launcher.nodes import diagnosis

    spec = read_resolved(folder / files.SPEC)
    path = folder / files.PROBE
    try:
        hangs = []
        for path in sorted((folder / files.HANGS).glob("rank-*.json")):
            told = json.loads(path.read_text())
            hangs.append(diagnosis.hang(told["rank"], told["host"], told["what"]))
        if hangs:
            return hangs, spec
        return diagnosis.findings(spec.machine, json.loads(path.read_text())), spec
    except FileNotFoundError:
        raise RunFailed(f"the probe in {folder} did not finish; see {folder}/logs") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunFailed(f"{path} holds no results of a probe: probe again with --nodes") from None


def _examine(run: str, overrides: list[str], nodes: int | None) -> tuple[list[Finding], RunSpec]:
    from frontrunner.launcher.nodes.login_node import look_around
    from frontrunner.launcher.verify import verified

    document, _ = verified(run, overrides)
    spec = document.spec
    found = look_around(spec, os.environ)
    if nodes is None or any(finding.severity == "error" for finding in found):
        return found, spec
    folder = run_folder.dated(f"doctor-{spec.name}").absolute()
    _run_as_job(spec, folder, f"probes {spec.nodes} nodes")
    probed, _ = read_probe(folder)
    return [*found, *probed], spec


def _run_as_job(spec: RunSpec, folder: Path, what: str) -> None:
    """Submit a short job whose ranks run this command on ``folder``, and wait for its end.

    The folder is made if there is none yet. The message of the start says ``what`` the job does.
    """
    from dataclasses import replace

    from frontrunner.launcher.submission import executable
    from frontrunner.slurm import job, policy
    from frontrunner.slurm.client import Slurm
    from frontrunner.slurm.script import render

    short = spec.slurm.model_copy(update={"time_limit": _JOB_TIME, "segment_time": None})
    spec = spec.model_copy(update={"slurm": short})
    script = replace(
        job.of_run(spec, policy.schedule(spec), folder, Path.cwd(), executable()), command="doctor"
    )
    if not folder.exists():
        run_folder.create(folder, spec)
    (folder / files.LOGS).mkdir()
    (folder / files.SCRIPT).write_text(render(script), encoding="utf-8")
    slurm = Slurm(os.environ)
    number = slurm.submit(files.SCRIPT, folder)
    say(f"job {number} {what}; folder {folder}")
    try:
        while (state := slurm.states([number]).get(number)) and state.active:
            time.sleep(_POLL_S)
    except BaseException:
        slurm.cancel(number)
        raise


def _tell(found: list[Finding], spec: RunSpec, as_json: bool) -> None:
    """Print findings, record faulty nodes, and exit with 1 if there is an error."""
    from frontrunner.slurm import exclusions

    sick = {f.node: f"{f.level}: {f.message}" for f in found if f.node and f.severity == "error"}
    path = exclusions.file_of(spec.machine.name)
    new = exclusions.add(path, {node: why for node, why in sick.items() if "#" not in node})
    if as_json:
        typer.echo(json.dumps({"findings": [asdict(finding) for finding in found]}))
    else:
        for finding in found:
            where = f"{finding.node} " if finding.node else ""
            tell(f"{finding.severity}: {where}{finding.level}: {finding.message}; {finding.fix}")
    if new:
        say(f"{', '.join(new)} added to {path}")
    if any(finding.severity == "error" for finding in found):
        raise typer.Exit(1)
