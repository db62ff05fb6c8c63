"""Fits one rate of matrix products for all machines that are built alike, and a factor for each engine.

Both act on the same products, so a run's speed depends on their product alone. Engines were measured by one
or two sources each. So their factors are drawn towards 1, as far as rows scatter: engines and rows are taken
to spread alike (ridge regression with weight 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from frontrunner.parallelism.planner.calibrate import Measured, tokens_per_s, with_constants
from frontrunner.parallelism.planner.candidates import Array

SHRINKAGE = 1.0
#: Factors at which each run is predicted; between them the logarithm of its speed is interpolated.
GRID = np.linspace(np.log(0.4), np.log(1.6), 15)
_ROUNDS = 6


@dataclass(frozen=True)
class Factors:
    """The shared ``gemm_factor``, and the factor of each engine (1 for engines without a run)."""

    shared: float
    engines: dict[str, float]

    def of(self, engine: str) -> float:
        return self.shared * self.engines.get(engine, 1.0)


@dataclass(frozen=True)
class Response:
    """log(predicted / measured) [len(GRID)] of a run's speed, by the factor on its matrix products."""

    engine: str
    log_errors: Array

    def log_error(self, factor: float) -> float:
        return float(np.interp(np.log(factor), GRID, self.log_errors))


def response(run: Measured) -> Response:
    """How a run's error depends on the factor."""
    software = run.workload.software
    assert software, "a measured run needs a machine with known rates"
    plain = replace(run.workload, profile=replace(run.workload.profile, speed=1.0))
    tried = replace(plain, software=with_constants(software, {"gemm_factor": np.exp(GRID)}))
    rows = run.candidates.take(np.zeros(len(GRID), dtype=int))
    return Response(run.workload.profile.name, np.log(tokens_per_s(tried, rows) / run.tokens_per_s))


def fit(responses: Sequence[Response]) -> Factors:
    """The factors that predict the runs best, by Gauss-Newton steps in their logarithms."""
    engines = sorted({run.engine for run in responses})
    which = np.array([engines.index(run.engine) for run in responses])
    values = np.append(np.zeros(len(engines)), np.log(0.8))
    penalty = np.diag([SHRINKAGE] * len(engines) + [0.0])
    for _ in range(_ROUNDS):
        at = values[-1] + values[which]
        errors = np.array([np.interp(x, GRID, run.log_errors) for x, run in zip(at, responses, strict=True)])
        moved = [np.interp(x + 0.05, GRID, run.log_errors) for x, run in zip(at, responses, strict=True)]
        slope = (np.array(moved) - errors) / 0.05
        slopes = np.zeros((len(responses), len(values)))
        slopes[np.arange(len(responses)), which] = slope
        slopes[:, -1] = slope
        values = values - np.linalg.solve(slopes.T @ slopes + penalty, slopes.T @ errors + penalty @ values)
    named = dict(zip(engines, np.exp(values[:-1]).tolist(), strict=True))
    return Factors(float(np.exp(values[-1])), named)
