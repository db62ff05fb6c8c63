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


def with_constants(software: SoftwareSpec, constants: Mapping[str, float]) -> SoftwareSpec:
    """The same run with other values of some constants (dotted names)."""
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
    return np.array([_log_error(run, constants) for run in runs])


def fit(runs: Sequence[Measured], keys: Sequence[str], rounds: int = 12) -> dict[str, float]:
    """The constants that predict ``runs`` best, by damped Gauss-Newton steps in their logarithms."""
    start = _software(runs[0])
    low, high = np.log([_bounds(key, runs[0].workload.machine) for key in keys]).T
    values = np.clip(np.log([constant(start, key) for key in keys]), low, high)
    for _ in range(rounds):
        errors = log_errors(runs, _named(keys, values))
        slopes = np.empty((len(runs), len(keys)))
        for index in range(len(keys)):
            moved = values.copy()
            moved[index] += 1e-3
            slopes[:, index] = (log_errors(runs, _named(keys, moved)) - errors) / 1e-3
        # A little damping, for constants that affect no run.
        normal = slopes.T @ slopes + 1e-6 * np.eye(len(keys))
        values = np.clip(values - np.linalg.solve(normal, slopes.T @ errors), low, high)
    return _named(keys, values)


def at_bounds(constants: Mapping[str, float], machine: MachineSpec) -> list[str]:
    """The constants that ended at a bound, away from the value that fits the runs."""
    return [
        key for key, value in constants.items() if np.any(np.isclose(value, _bounds(key, machine), rtol=1e-6))
    ]


def _bounds(key: str, machine: MachineSpec) -> tuple[float, float]:
    low, high = BOUNDS[key]
    unit = machine.links.network.bandwidth_bytes_per_s if key.startswith("rings.") else 1.0
    return low * unit, high * unit


def _named(keys: Sequence[str], logarithms: Array) -> dict[str, float]:
    return {key: float(np.exp(value)) for key, value in zip(keys, logarithms, strict=True)}


def _log_error(run: Measured, constants: Mapping[str, float]) -> float:
    workload = replace(run.workload, software=with_constants(_software(run), constants))
    return float(np.log(tokens_per_s(workload, run.candidates)[0] / run.tokens_per_s))


def tokens_per_s(workload: Workload, c: Candidates) -> Array:
    """Predicted tokens/s per device."""
    devices = c.tensor * c.pipeline
    return c.grad_accum_steps * workload.tokens(c) / devices / step_time(workload, c).total
