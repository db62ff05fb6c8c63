"""Compares the planner with published runs: predicted, published, and the error."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from frontrunner.configs.schema import MachineSpec
from frontrunner.parallelism.planner.calibrate import Measured, tokens_per_s
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.joint_fit import fit, response
from frontrunner.parallelism.planner.memory import stage_memory
from frontrunner.parallelism.planner.published import CHECK, PublishedRun
from frontrunner.parallelism.planner.published_workload import Unusable, prepare, published_tokens_per_s
from frontrunner.parallelism.planner.uncertainty import JUDGED, Request, half_width_pct, interval_pct

#: Machine files by the names that publications use; Crusher is Frontier's test system with the same nodes.
MACHINES = {"Frontier": "frontier", "Crusher": "frontier", "LUMI-G": "lumi-g"}
#: Machine files of other devices: nothing is fitted to their rows.
OTHER_MACHINES = {"MI300X": "mi300x", "MI325X": "mi325x", "MI355X": "mi355x", "MI300A": "mi300a"}


@dataclass(frozen=True)
class Comparison:
    """One figure of one row. ``left_out_error_pct`` uses constants fitted only to other sources."""

    id: str
    machine: str
    published: float
    predicted: float
    left_out_error_pct: float | None = None
    profile: str = ""
    source: str = ""
    devices: int = 0
    interval_pct: float | None = None

    @property
    def error_pct(self) -> float:
        return (self.predicted / self.published - 1) * 100


@dataclass
class Validation:
    """Tokens/s per device, bytes at rest and at the peak, and the skipped rows with the reason.

    ``checks`` are speeds of rows that nothing is ever fitted to; their figure is the error with their source
    left out. ``held`` are those of them that lie in their interval. ``other_devices`` are speeds on devices
    that the rates were not fitted to.
    """

    speed: list[Comparison] = field(default_factory=list)
    checks: list[Comparison] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    other_devices: list[Comparison] = field(default_factory=list)
    memory: list[Comparison] = field(default_factory=list)
    at_rest: list[Comparison] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    fitted: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def validate(rows: Sequence[PublishedRun], machine: Callable[[str], MachineSpec]) -> Validation:
    """Predict every row. ``machine`` loads the machine file of that name."""
    found = Validation()
    files = MACHINES | OTHER_MACHINES
    measured: dict[str, tuple[PublishedRun, Measured]] = {}
    for row in rows:
        try:
            if row.machine not in files:
                raise Unusable(f"{row.machine} has no machine file")
            spec = machine(files[row.machine])
            workload, candidates = prepare(row, spec)
            found.reasons[workload.profile.name] = workload.profile.reason
            _compare_memory(row, workload, candidates, found)
            if row.usable_for == "memory only":
                continue
            speed = published_tokens_per_s(row, workload.model)
            if row.machine in OTHER_MACHINES:
                found.other_devices.append(_other_device(row, Measured(workload, candidates, speed)))
                continue
            measured[row.id] = (row, Measured(workload, candidates, speed))
        except Unusable as reason:
            found.skipped.append((row.id, str(reason)))
    left_out = leave_one_source_out(measured.values())
    for row, run in measured.values():
        compared = Comparison(
            row.id,
            row.machine,
            run.tokens_per_s,
            float(tokens_per_s(run.workload, run.candidates)[0]),
            left_out.get(row.id),
            run.workload.profile.name,
            source_of(row),
            row.devices or 0,
        )
        if row.usable_for == CHECK:
            found.checks.append(compared)
            if compared.left_out_error_pct is not None and _holds(run.workload, compared):
                found.held.append(row.id)
            continue
        found.speed.append(compared)
        software = run.workload.software
        assert software
        found.fitted[f"{MACHINES[row.machine]} {row.software_year}"] = software.fitted
        rows_of = found.fitted.setdefault("engines", {}).setdefault(run.workload.profile.name, [])
        rows_of.append(row.id)
    return found


def _other_device(row: PublishedRun, run: Measured) -> Comparison:
    return Comparison(
        row.id,
        row.machine,
        run.tokens_per_s,
        float(tokens_per_s(run.workload, run.candidates)[0]),
        profile=run.workload.profile.name,
        source=source_of(row),
        devices=row.devices or 0,
        interval_pct=interval_pct(run.workload, row.devices or 1),
    )


def leave_one_source_out(runs: Iterable[tuple[PublishedRun, Measured]]) -> dict[str, float]:
    """Error in percent of each row, with all factors fitted to the other sources.

    The machines have the same nodes, so all rows serve all, except those that are only a check. A row whose
    source is the only one has no figure.
    """
    kept = list(runs)
    everything = [(row.id, source_of(row), response(run)) for row, run in kept]
    checks = {row.id for row, _ in kept if row.usable_for == CHECK}
    errors: dict[str, float] = {}
    for source in {source for _, source, _ in everything}:
        others = [answer for name, other, answer in everything if other != source and name not in checks]
        if not others:
            continue
        factors = fit(others)
        for name, other, answer in everything:
            if other == source:
                errors[name] = float(np.expm1(answer.log_error(factors.of(answer.engine))) * 100)
    return errors


def _holds(workload: Workload, compared: Comparison) -> bool:
    """Whether a check lies in the interval that the other sources' residuals give it."""
    gated = workload.model.activation == "swiglu"
    request = Request(compared.devices, workload.seq_len, compared.profile, gated)
    others = [run for run in JUDGED if not compared.source.endswith(run.source)]
    width = half_width_pct(request, others)
    assert compared.left_out_error_pct is not None
    return abs(math.log1p(compared.left_out_error_pct / 100)) <= math.log1p(width / 100)


def source_of(row: PublishedRun) -> str:
    """The repository or document of a row, without the file."""
    repository = re.match(r"https?://github\.com/[^/]+/[^/]+", row.source_url)
    return repository.group(0) if repository else row.source_url


def _compare_memory(row: PublishedRun, workload: Workload, candidates: Candidates, found: Validation) -> None:
    stages = row.memory_mib.per_stage_allocated_maxalloc_reserved if row.memory_mib else {}
    indices = {name: int(name.removeprefix("stage")) for name in stages}
    if any(index >= candidates.pipeline[0] for index in indices.values()):
        raise Unusable(f"its log has memory of stage {max(indices.values())}, but pp is {row.pp}")
    for name, logged in stages.items():
        need = stage_memory(workload, candidates, np.array([float(indices[name])]))
        label = f"{row.id} {name}"
        for figures, value, predicted in (
            (found.at_rest, logged[0], need.at_rest),
            (found.memory, logged[1], need.peak),
        ):
            if value:
                figures.append(
                    Comparison(
                        label, row.machine, value * 2**20, float(predicted[0]), None, workload.profile.name
                    )
                )
