"""``frontrunner doctor``: find problems on a cluster before a run starts."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.launcher.display.terminal import say, tell

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.launcher.nodes.diagnosis import Finding

PROBE = "frontrunner.parallelism.runtime.probe:probe"
_POLL_S = 5.0
_JOB_TIME = "15m"


def doctor(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run file, a preset, or the folder of an earlier probe.")
    ],
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")
    ] = False,
) -> None:
    """Check for problems before a run: on this node, and with --nodes also on compute nodes.

    The exit code is 1 if there is an error. Faulty nodes are added to runs/exclude-MACHINE.txt, and `submit`
    excludes them.
    """
    from frontrunner.parallelism.rendezvous import from_environment
    from frontrunner.run_folder import files

    folder = Path(run)
    if files.holds_run(folder):
        place = from_environment(os.environ)
        if place is not None:
            from frontrunner.launcher.ranks.rank import run_rank

            os._exit(run_rank(PROBE, folder.absolute(), place))
        found, spec = read_probe(folder)
    else:
        overrides = [*(override or [])]
        overrides += [f"nodes={nodes}"] if nodes is not None else []
        overrides += [f"slurm.account={json.dumps(account)}"] if account is not None else []
        found, spec = _examine(run, overrides, nodes)
    _tell(found, spec, as_json)


def read_probe(folder: Path) -> tuple[list[Finding], RunSpec]:
    """The findings of a probe; RunFailed if it left no results."""
    from frontrunner.configs.load import read_resolved
    from frontrunner.launcher.errors import RunFailed
    from frontrunner.launcher.nodes import diagnosis
    from frontrunner.run_folder import files

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
    folder = _probe_as_job(spec)
    probed, _ = read_probe(folder)
    return [*found, *probed], spec


def _probe_as_job(spec: RunSpec) -> Path:
    """Submit a probe and wait for it; returns its folder."""
    from dataclasses import replace

    from frontrunner.launcher.submission import executable
    from frontrunner.run_folder import files
    from frontrunner.run_folder import folder as run_folder
    from frontrunner.slurm import job, policy
    from frontrunner.slurm.client import Slurm
    from frontrunner.slurm.script import render

    short = spec.slurm.model_copy(update={"time_limit": _JOB_TIME, "segment_time": None})
    spec = spec.model_copy(update={"slurm": short})
    folder = run_folder.dated(f"doctor-{spec.name}").absolute()
    probing = job.of_run(spec, policy.schedule(spec), folder, Path.cwd(), executable())
    run_folder.create(folder, spec)
    (folder / files.LOGS).mkdir()
    (folder / files.SCRIPT).write_text(render(replace(probing, command="doctor")), encoding="utf-8")
    slurm = Slurm(os.environ)
    number = slurm.submit(files.SCRIPT, folder)
    say(f"job {number} probes {spec.nodes} nodes; folder {folder}")
    try:
        while (state := slurm.states([number]).get(number)) and state.active:
            time.sleep(_POLL_S)
    except BaseException:
        slurm.cancel(number)
        raise
    return folder


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
