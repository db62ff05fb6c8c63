"""The legal points of a sweep's space, and the planner's predictions."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from frontrunner.configs import load
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.slurm import clock, seconds
from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.sweep import ACCUMULATION, Scalar
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import Estimate, estimate

Values = dict[str, Scalar]
#: A common batch may be this much larger than the largest that a layout needs.
_LARGEST_GROWTH = 64


@dataclass(frozen=True)
class Point:
    """One legal layout: ``values`` by dotted key (without inactive conditional keys) and its run."""

    number: int
    values: Values
    spec: RunSpec
    workload: Workload
    candidate: Candidates

    @property
    def node_hours_a_second(self) -> float:
        return self.spec.nodes / 3600


@dataclass(frozen=True)
class Predicted:
    """For n points: the objective (NaN if the machine's rates are unknown) and log(peak / memory)."""

    objective: np.ndarray
    load: np.ndarray


def points(sweep: SweepDocument, reasons: Counter[tuple[str, str]] | None = None) -> tuple[Point, ...]:
    """All legal points in file order; SpecError with the most common reason if there are none.

    ``reasons`` gets the number of combinations that each key and constraint made illegal.
    """
    reasons = Counter() if reasons is None else reasons
    found: list[Point] = []
    workloads: list[Workload] = []
    settings = trial_settings(sweep)
    for values in _combinations(sweep):
        spec = _run(sweep, settings, values, reasons)
        if spec is None:
            continue
        try:
            candidate = Candidates.of(spec, Layout.from_spec(spec))
        except SpecError as error:
            _count(error.violations, reasons)
            continue
        workload = Workload.of(spec)
        known = next((other for other in workloads if other == workload), None)
        if known is None:
            workloads.append(workload)
        found.append(Point(len(found), values, spec, known or workload, candidate))
    if not found:
        (path, constraint), _ = reasons.most_common(1)[0]
        what = f"contains no legal run; most common reason: {path}: {constraint}"
        raise SpecError([sweep.violation("space", what, "widen the space, or change the base run")])
    return tuple(found)


def size(sweep: SweepDocument) -> int:
    """Number of combinations, legal or not, ignoring conditions."""
    return math.prod(axis.count for axis in sweep.spec.space.values())


def _combinations(sweep: SweepDocument) -> Iterator[Values]:
    """Values of the varying keys, without inactive conditional keys."""
    space = sweep.spec.space
    seen = set()
    for chosen in itertools.product(*(axis.values() for axis in space.values())):
        given = dict(zip(space, chosen, strict=True))
        kept = {
            key: value
            for key, value in given.items()
            if all(given[other] in allowed for other, allowed in space[key].when.items())
        }
        if (identity := tuple(kept.items())) not in seen:
            seen.add(identity)
            yield kept


def _run(
    sweep: SweepDocument, settings: Values, values: Values, reasons: Counter[tuple[str, str]]
) -> RunSpec | None:
    """The run of a point; None if it is illegal, with its violations counted."""
    given = settings | {key: value for key, value in values.items() if key != ACCUMULATION}
    if ACCUMULATION in values:
        batch = _batch(sweep, values)
        if batch is None:
            reasons["layout", "tensor x pipeline must divide the devices"] += 1
            return None
        given["training.global_batch_size"] = batch
    examined = load.vary(sweep.base, given)
    if examined.violations or examined.document is None:
        _count(examined.violations, reasons)
        return None
    return examined.document.spec


def trial_settings(sweep: SweepDocument) -> Values:
    """Overrides of every trial: it is short, and writes no checkpoints."""
    base, steps = sweep.base.spec, sweep.spec.steps
    batch = common_batch(sweep)
    return {
        **({} if batch is None else {"training.global_batch_size": batch}),
        "training.steps": steps,
        "training.validate_every_steps": 0,
        "optimizer.warmup_steps": min(steps, base.optimizer.warmup_steps),
        "checkpoint.at_end": False,
        "checkpoint.every_steps": None,
        "checkpoint.every_minutes": None,
        "slurm.time_limit": clock(seconds(sweep.spec.trial_time)),
    }


def common_batch(sweep: SweepDocument) -> int | None:
    """The global batch of all trials where neither the run file nor the space sets one; None where one does.

    A run's default depends on its layout, so trials would differ in their batch. This one is a multiple that
    all layouts allow.
    """
    key = "training.global_batch_size"
    space, given = sweep.spec.space, sweep.base.tree.plain().get("training")
    if key in space or ACCUMULATION in space or isinstance(given, dict) and "global_batch_size" in given:
        return None
    sizes = {size for values in _combinations(sweep) if (size := _batch(sweep, values))}
    batch = math.lcm(sweep.base.spec.training.global_batch_size, *sizes)
    if batch > _LARGEST_GROWTH * max(sizes, default=1):
        what = f"sets no {key}, and the smallest that all layouts of the space allow is {batch:,}"
        raise SpecError([sweep.violation("base", what, "set it in the run file, or narrow the space")])
    return batch


def _batch(sweep: SweepDocument, values: Mapping[str, Scalar]) -> int | None:
    """Global batch size for a point's accumulation; None if the ranks do not divide evenly."""
    base = sweep.base.spec

    def value(key: str, otherwise: int) -> int:
        given = values.get(key, otherwise)
        assert isinstance(given, int)
        return given

    devices = value("nodes", base.nodes) * base.machine.devices_per_node
    ranks = value("layout.tensor", base.layout.tensor) * value("layout.pipeline", base.layout.pipeline)
    if devices % ranks:
        return None
    micro = value("layout.micro_batch_size", base.layout.micro_batch_size)
    return devices // ranks * micro * value(ACCUMULATION, 1)


def _count(violations: Sequence[Violation], reasons: Counter[tuple[str, str]]) -> None:
    first = violations[0]
    reasons[first.path, first.constraint] += 1


def predict(
    chosen: Sequence[Point], objective: str, software: Mapping[int, SoftwareSpec] | None = None
) -> Predicted:
    """The planner's predictions; ``software`` replaces a machine's rates, by workload id."""
    values, loads = np.full(len(chosen), np.nan), np.empty(len(chosen))
    groups: dict[int, list[int]] = {}
    for place, point in enumerate(chosen):
        groups.setdefault(id(point.workload), []).append(place)
    for identity, places in groups.items():
        workload = chosen[places[0]].workload
        if software and identity in software:
            workload = replace(workload, software=software[identity])
        estimated = estimate(workload, joined([chosen[place].candidate for place in places]))
        loads[places] = np.log(estimated.memory.peak / workload.machine.device.memory_bytes)
        if estimated.time is not None:
            values[places] = _figure(estimated, objective)
    return Predicted(values, loads)


def joined(candidates: Sequence[Candidates]) -> Candidates:
    """Concatenates predictions."""
    return Candidates(
        **{f.name: np.concatenate([getattr(c, f.name) for c in candidates]) for f in fields(Candidates)}
    )


def _figure(estimated: Estimate, objective: str) -> np.ndarray:
    assert estimated.time
    match objective:
        case "model_flops_per_s_per_device":
            return estimated.model_flops_per_s()
        case "hardware_flops_per_s_per_device":
            return estimated.hardware_flops_per_s()
        case "step_time_s":
            return estimated.time.total
        case _:
            return estimated.tokens_per_s


def whole_run(sweep: SweepDocument, values: Values) -> dict[str, Any]:
    """What a point changes in the base run, as nested keys, to run it in full after the sweep."""
    given = {key: value for key, value in values.items() if key != ACCUMULATION}
    if ACCUMULATION in values:
        given["training.global_batch_size"] = _batch(sweep, values)
    elif (batch := common_batch(sweep)) is not None:
        given["training.global_batch_size"] = batch
    keys: dict[str, Any] = {}
    for dotted, value in given.items():
        *sections, key = dotted.split(".")
        place = keys
        for section in sections:
            if not isinstance(place.get(section, {}), dict):  # a preset, with keys over it
                place[section] = {"preset" if section == "sharding" else "extends": place[section]}
            place = place.setdefault(section, {})
        place[key] = value
    return keys
