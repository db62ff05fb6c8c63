"""``frontrunner calibrate``: fit a machine's constants to the user's own runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher import machine_file
from frontrunner.launcher.commands.plan import software_year
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.launcher.outputs import check_outputs
from frontrunner.run_folder import files

if TYPE_CHECKING:
    from frontrunner.configs.schema import MachineSpec
    from frontrunner.parallelism.planner.calibrate import Measured


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS...", help="Run folders, folders of them, or YAML files of measured runs."
        ),
    ],
    machine: Annotated[str, typer.Option(help="The machine to fit: a preset or a file.")],
    software: Annotated[str | None, typer.Option(help="Software year (default: the newest).")] = None,
    output: Annotated[Path, typer.Option(help="The machine file to write.")] = Path("machine.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a machine's constants to measured runs and write a machine file."""
    from frontrunner.parallelism.planner.calibrate import (
        at_bounds,
        constant,
        fit,
        left_out_errors,
        log_errors,
        usable,
    )

    check_outputs({"--output": output})
    known, year = _start(machine, software, output)
    measured = _read(runs, known, year)
    if not measured:
        raise SpecError(
            [Violation("RUNS", None, "contain no measured steps", "name run folders with completed steps")]
        )
    names, those = [name for name, _ in measured], [run for _, run in measured]
    keys = usable(those)
    constants = fit(those, keys)
    own = dict(zip(names, log_errors(those, {}).tolist(), strict=True))
    # None where there are no others to fit to.
    after = left_out_errors(those, keys).tolist() if len(those) > 1 else [None]
    left_out = dict(zip(names, after, strict=True))
    section = machine_file.fitted_keys(constants, list(own))
    comment = "Constants fitted by frontrunner calibrate."
    output.write_text(machine_file.text(comment, machine_file.based_on(machine, year, section)))
    was = {key: constant(known.software[year], key) for key in keys}
    for key in at_bounds(constants, known):
        say(f"{key} is at its bound {constants[key]:.4g}: the rates in {machine} do not match these runs")
    if as_json:
        found = {"outputs": [str(output)], "constants": constants, "before": was}
        typer.echo(json.dumps(found | {"log_error_before": own, "log_error_left_out": left_out}))
        return
    for key in keys:
        tell(f"{key}: {was[key]:.4g} -> {constants[key]:.4g}")
    _show(own, left_out)
    tell(f"wrote {output}; use it with `machine: {output}`")


def _start(machine: str, software: str | None, output: Path) -> tuple[MachineSpec, str]:
    """The machine file to start from and its software year; SpecError if there is none."""
    from frontrunner.configs.load import load_machine, load_run

    spec = load_run("quickstart", [f"machine={json.dumps(machine)}", "nodes=1"]).spec
    year = software_year(spec.machine, software) or max(spec.machine.software, default="")
    if not year:
        constraint = f"{spec.machine.name} has no rates to fit"
        fix = "add a `software` section to its machine file, as in frontier's"
        raise SpecError([Violation("machine.software", None, constraint, fix)])
    known = load_machine(machine)
    if output.resolve() == Path(machine).resolve():
        fix = "choose another file; it will extend this one"
        raise SpecError([Violation("--output", str(output), "is the input machine file", fix)])
    return known, year


def _show(own: dict[str, float], left_out: dict[str, float | None]) -> None:
    """Relative speed errors of each run."""
    for name, before in own.items():
        error, then = left_out[name], "-"
        if error is not None:
            then = f"{math.expm1(error):+.1%}"
        now = f"{math.expm1(before):+.1%}"
        tell(f"{name}: speed error {now} before the fit, {then} fitted without this run")


def _read(paths: list[Path], machine: MachineSpec, year: str) -> list[tuple[str, Measured]]:
    """Every run with its speed; SpecError for paths that are neither a run folder nor a file of runs."""
    found: list[tuple[str, Measured]] = []
    for path in paths:
        if not path.is_dir():
            found += _published(path, machine, year)
        elif (path / files.SPEC).exists() or not (below := _runs_below(path)):
            found.append((str(path), _own(path, machine, year)))
        else:
            found += _several(below, machine, year)
    return found


def _runs_below(folder: Path) -> list[Path]:
    from frontrunner.launcher.runs import find

    return [run for run in find([folder]) if run != folder]


def _several(runs: list[Path], machine: MachineSpec, year: str) -> list[tuple[str, Measured]]:
    """The runs of a folder that were measured on this machine; the others are named on stderr."""
    found = []
    for run in runs:
        try:
            found.append((str(run), _own(run, machine, year)))
        except SpecError as error:
            typer.echo(f"skipped {run}: {error.violations[0]}", err=True)
    return found


def _own(folder: Path, machine: MachineSpec, year: str) -> Measured:
    """A run folder: the median of its steady steps."""
    from frontrunner.configs.load import read_resolved
    from frontrunner.parallelism.layout import Layout
    from frontrunner.parallelism.planner.calibrate import Measured
    from frontrunner.parallelism.planner.candidates import Candidates, Workload
    from frontrunner.run_folder.record_reader import last_start, read_records, steps_of
    from frontrunner.run_folder.steady import steady_median

    if not (folder / files.SPEC).exists():
        constraint = f"is a folder without {files.SPEC}: there is no run in it"
        raise SpecError([Violation("RUNS", str(folder), constraint, "name run folders, or a folder of them")])
    spec = read_resolved(folder / files.SPEC)
    was, now = (f"{m.packages_per_node} x {m.devices_per_package}" for m in (spec.machine, machine))
    if was != now:
        constraint = f"ran on nodes of {was} devices, and {machine.name}'s have {now}"
        raise SpecError([Violation("RUNS", str(folder), constraint, "give runs of that machine")])
    spec = spec.model_copy(update={"machine": machine})
    try:
        records = read_records(folder)
    except OSError as error:
        constraint = f"{files.RECORDS} cannot be read: {error.strerror}"
        raise SpecError([Violation("RUNS", str(folder), constraint, "name run folders")]) from None
    step_time_s = steady_median(steps_of(last_start(records)), "step_time_s")
    if not step_time_s:
        raise SpecError(
            [Violation("RUNS", str(folder), "contains no measured steps", "name a run with completed steps")]
        )
    tokens = spec.training.global_batch_size * spec.training.seq_len / spec.world_size
    workload = replace(Workload.of(spec), software=machine.software[year])
    return Measured(workload, Candidates.of(spec, Layout.from_spec(spec)), tokens / step_time_s)


def _published(path: Path, machine: MachineSpec, year: str) -> list[tuple[str, Measured]]:
    """The rows of a file that the planner can predict."""
    from frontrunner.parallelism.planner.calibrate import Measured
    from frontrunner.parallelism.planner.published import CHECK, read
    from frontrunner.parallelism.planner.published_workload import Unusable, prepare, published_tokens_per_s

    found = []
    for row in read(path):
        if row.usable_for == CHECK:
            say(f"skipped {row.id}: usable_for: {CHECK} keeps it out of fits")
            continue
        try:
            workload, candidates = prepare(row, machine)
            workload = replace(workload, software=machine.software[year])
            found.append(
                (row.id, Measured(workload, candidates, published_tokens_per_s(row, workload.model)))
            )
        except Unusable as reason:
            say(f"skipped {row.id}: {reason}")
    return found
