"""Our search: the planner's prediction is the prior, and its error is learnt from trials.

The next point is the one with the largest expected improvement, weighted by how likely it fits into memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.boundary import chances
from frontrunner.launcher.sweeping.improvement import expected_improvement
from frontrunner.launcher.sweeping.space import Point, predict
from frontrunner.parallelism.planner.calibrate import Measured, fit, tokens_per_s, usable, with_constants

#: Number of best predicted layouts to try before learning.
FIRST = 3
_SHORTEST_FIT = 3


@dataclass(frozen=True)
class History:
    """Outcomes so far by point number: ``measured`` objectives, and the other outcomes."""

    measured: dict[int, float]
    out_of_memory: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()

    @property
    def taken(self) -> set[int]:
        return {*self.measured, *self.out_of_memory, *self.running, *self.other}


class Guided:
    """Chooses among the ``points`` that ``allowed`` marks; all it learns is in ``seen``."""

    def __init__(self, points: Sequence[Point], allowed: np.ndarray, objective: str) -> None:
        self._points, self._allowed, self._objective = points, allowed, objective
        self._sign = 1.0 if OBJECTIVES[objective] else -1.0
        self._predicted = predict(points, objective)
        self._features = features(points)
        self._recalibrated_at = 0

    def choose(self, history: History) -> Point | None:
        """The next point to try; None if all have been tried."""
        free = self._allowed.copy()
        free[list(history.taken)] = False
        if not free.any():
            return None
        self._recalibrate(history)
        prior = self._sign * np.log(self._predicted.objective)
        informed = bool(np.isfinite(prior).all())
        fits = self._fits(history)
        if len(history.taken) < FIRST and informed:
            return self._points[_best(prior + np.log(fits), free)]
        if not history.measured:  # only failures so far, or no prediction: take what surely fits
            return self._points[_best((prior if informed else 0.0) + 10 * np.log(fits), free)]
        gain = self._improvement(history, prior if informed else np.zeros(len(prior)))
        return self._points[_best(np.log(gain) + np.log(fits), free)]

    def _improvement(self, history: History, prior: np.ndarray) -> np.ndarray:
        tried = list(history.measured)
        values = self._sign * np.log([history.measured[number] for number in tried])
        return expected_improvement(prior, self._features, tried, values, list(history.running))

    def _fits(self, history: History) -> np.ndarray:
        load = self._predicted.load
        return chances(load, self._features, list(history.measured), list(history.out_of_memory))

    def _recalibrate(self, history: History) -> None:
        """Refit the planner's constants each time the results have grown by half."""
        count = len(history.measured)
        if count < max(_SHORTEST_FIT, 1.5 * self._recalibrated_at):
            return
        self._recalibrated_at = count
        software = recalibrated(self._points, history.measured, self._objective)
        self._predicted = predict(self._points, self._objective, software)


def recalibrated(
    points: Sequence[Point], measured: dict[int, float], objective: str
) -> dict[int, SoftwareSpec]:
    """The rates that fit the measured points best, by workload id; empty if none are known."""
    workloads = {id(point.workload): point.workload for point in points}
    machines = [workload.machine for workload in workloads.values()]
    if any(workload.software is None for workload in workloads.values()) or any(
        m != machines[0] for m in machines
    ):
        return {}
    sign = 1.0 if OBJECTIVES[objective] else -1.0
    runs = []
    tried = [points[number] for number in measured]
    for point, own in zip(tried, predict(tried, objective).objective, strict=True):
        ratio = (measured[point.number] / own) ** sign
        speed = float(tokens_per_s(point.workload, point.candidate)[0]) * ratio
        runs.append(Measured(point.workload, point.candidate, speed))
    keys = usable(runs)
    constants = fit(runs, keys, rounds=4) if keys else {}
    return {
        identity: with_constants(workload.software, constants)
        for identity, workload in workloads.items()
        if workload.software is not None
    }


def features(points: Sequence[Point]) -> np.ndarray:
    """n points as numbers in [0, 1]: one column per numeric key (log if positive), or per choice."""
    keys = list(dict.fromkeys(key for point in points for key in point.values))
    columns = []
    for key in keys:
        values = [point.values.get(key) for point in points]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            numbers = np.array(values, dtype=float)
            columns.append(np.log2(numbers) if numbers.min() > 0 else numbers)
            continue
        for choice in list(dict.fromkeys(map(repr, values)))[1:]:
            columns.append(np.array([float(repr(value) == choice) for value in values]))
    table = np.stack(columns, axis=1)
    low, high = table.min(axis=0), table.max(axis=0)
    scaled: np.ndarray = (table - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _best(score: np.ndarray | float, free: np.ndarray) -> int:
    return int(np.argmax(np.where(free, score, -np.inf)))
