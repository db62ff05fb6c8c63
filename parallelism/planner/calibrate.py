"""Fits a machine's constants to measured runs: bounded least squares of the logarithm of the speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.software import SoftwareSpec
from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload
from frontrunner.parallelism.planner.step_time import step_time

#: Constants that may be fitted, with the bounds that physics and measured rates allow. Constants of rings are
#: shares of the network link's rate; on nodes with several interfaces that is one device's share.
BOUNDS: dict[str, tuple[float, float]] = {
    "gemm_factor": (0.4, 1.25),
    "rings.across_nodes": (0.08, 2.1),
}


@dataclass(frozen=True)
class Measured:
    """A run and its measured tokens/s per device."""

    workload: Workload
    candidates: Candidates
    tokens_per_s: float


def usable(runs: Sequence[Measured]) -> list[str]:
    """The constants that the speed of at least one of ``runs`` depends on."""
    base = log_errors(runs, {})
    keys = []
    for key in BOUNDS:
        value = constant(_software(runs[0]), key)
        if np.any(np.abs(log_errors(runs, {key: value * 1.1}) - base) > 1e-4):
            keys.append(key)
    return keys


def _software(run: Measured) -> SoftwareSpec:
    assert run.workload.software, "a measured run needs a machine with known rates"
    return run.workload.software


def with_constants(software: SoftwareSpec, constants: Mapping[str, float | Array]) -> SoftwareSpec:
    """The same run with other values of some constants (dotted names).

    An array [n] has a value for each of n candidates, for :func:`tokens_per_s` alone.
    """
    rings = {
        key.removeprefix("rings."): value for key, value in constants.items() if key.startswith("rings.")
    }
    own = {key: value for key, value in constants.items() if not key.startswith("rings.")}
    return software.model_copy(update={"rings": software.rings.model_copy(update=rings)} | own)


def constant(software: SoftwareSpec, key: str) -> float:
    value = getattr(software.rings, key.removeprefix("rings.")) if "." in key else getattr(software, key)
    return float(value)


def log_errors(runs: Sequence[Measured], constants: Mapping[str, float]) -> Array:
    """log(predicted / measured) of the speed of each run."""
    return np.array([_log_errors(run, constants, 1)[0] for run in runs])


def fit(runs: Sequence[Measured], keys: Sequence[str], rounds: int = 12) -> dict[str, float]:
    """The constants that predict ``runs`` best, by damped Gauss-Newton steps in their logarithms."""
    return _fits(runs, keys, np.ones((1, len(runs))), rounds)[0]


def left_out_errors(runs: Sequence[Measured], keys: Sequence[str], rounds: int = 12) -> Array:
    """:func:`log_errors` of each of two or more runs of one machine, with constants fitted to the others."""
    fits = _fits(runs, keys, 1 - np.eye(len(runs)), rounds)
    errors = [log_errors([run], constants) for run, constants in zip(runs, fits, strict=True)]
    return np.concatenate(errors)


def _fits(
    runs: Sequence[Measured], keys: Sequence[str], counts: Array, rounds: int
) -> list[dict[str, float]]:
    """A fit for each row of ``counts`` [fits, runs], which is 1 for the runs that count in it and else 0.

    All fits step together, so that a run is predicted once a round, for all constants that are tried.
    """
    start = _software(runs[0])
    low, high = np.log([_bounds(key, runs[0].workload.machine) for key in keys]).T
    values = np.clip(np.log([constant(start, key) for key in keys]), low, high)
    values = np.tile(values, (len(counts), 1))  # [fits, keys]
    for _ in range(rounds):
        moved = values[:, None] + np.vstack([np.zeros(len(keys)), 1e-3 * np.eye(len(keys))])
        tried = {key: np.exp(moved[:, :, index].ravel()) for index, key in enumerate(keys)}
        found = [_log_errors(run, tried, moved[:, :, 0].size) for run in runs]
        errors = np.array(found).T.reshape(*moved.shape[:2], len(runs))  # [fits, 1 + keys, runs]
        slopes = (errors[:, 1:] - errors[:, :1]) / 1e-3 * counts[:, None]
        # A little damping, for constants that affect no run.
        normal = slopes @ slopes.transpose(0, 2, 1) + 1e-6 * np.eye(len(keys))
        steps = np.linalg.solve(normal, slopes @ errors[:, 0, :, None])[..., 0]
        values = np.clip(values - steps, low, high)
    return [{key: float(np.exp(x)) for key, x in zip(keys, row, strict=True)} for row in values]


def at_bounds(constants: Mapping[str, float], machine: MachineSpec) -> list[str]:
    """The constants that ended at a bound, away from the value that fits the runs."""
    return [
        key for key, value in constants.items() if np.any(np.isclose(value, _bounds(key, machine), rtol=1e-6))
    ]


def _bounds(key: str, machine: MachineSpec) -> tuple[float, float]:
    low, high = BOUNDS[key]
    unit = machine.links.network.bandwidth_bytes_per_s if key.startswith("rings.") else 1.0
    return low * unit, high * unit


def _log_errors(run: Measured, constants: Mapping[str, float | Array], count: int) -> Array:
    """The error of one run with each of ``count`` values of the constants."""
    workload = replace(run.workload, software=with_constants(_software(run), constants))
    rows = run.candidates.take(np.zeros(count, dtype=int))
    found: Array = np.log(tokens_per_s(workload, rows) / run.tokens_per_s)
    return found


def tokens_per_s(workload: Workload, c: Candidates) -> Array:
    """Predicted tokens/s per device."""
    devices = c.tensor * c.pipeline
    return c.grad_accum_steps * workload.tokens(c) / devices / step_time(workload, c).total
