"""The search of ours: the planner's prediction is the prior, and what is learnt is its error.

log(measured / predicted) is a Gaussian process over the keys of the space; the next point is the one with the
largest expected improvement, weighted by how likely it fits into memory. Where memory really ends (as a share
of what the planner says) has a posterior of its own, from trials that fitted and trials that did not.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.space import Point, Predicted, predict
from frontrunner.parallelism.planner.calibrate import Measured, fit, tokens_per_s, usable, with_constants

#: Best predicted layouts that are tried before anything is learnt.
FIRST = 3
#: Where memory ends (logarithm of the planner's peak over what there is): shares, means and deviations. Most
#: likely within what its peaks are off by; on a machine of which it does not know all, further below.
_BOUNDARY = ((0.95, 0.0, 0.05), (0.05, -0.15, 0.4))
#: How sharp that end is.
_BOUNDARY_WIDTH = 0.01
_SHORTEST_FIT = 3


@dataclass(frozen=True)
class Seen:
    """What became of the points so far, by their numbers: ``measured`` objectives, and the others."""

    measured: dict[int, float]
    out_of_memory: frozenset[int] = frozenset()
    running: frozenset[int] = frozenset()
    other: frozenset[int] = frozenset()

    @property
    def taken(self) -> set[int]:
        return {*self.measured, *self.out_of_memory, *self.running, *self.other}


class Guided:
    """Chooses among ``points`` those that ``allowed`` marks; all that it learns is in ``seen``."""

    def __init__(self, points: Sequence[Point], allowed: np.ndarray, objective: str) -> None:
        self._points, self._allowed, self._objective = points, allowed, objective
        self._sign = 1.0 if OBJECTIVES[objective] else -1.0
        self._predicted = predict(points, objective)
        self._features = features(points)
        self._recalibrated_at = 0

    @property
    def predicted(self) -> Predicted:
        return self._predicted

    def choose(self, seen: Seen) -> Point | None:
        """The point to try next; None where all have been tried."""
        free = self._allowed.copy()
        free[list(seen.taken)] = False
        if not free.any():
            return None
        self._recalibrate(seen)
        prior = self._sign * np.log(self._predicted.objective)
        informed = bool(np.isfinite(prior).all())
        fits = self._fits(seen)
        if len(seen.taken) < FIRST and informed:
            return self._points[_best(prior + np.log(fits), free)]
        if not seen.measured:  # nothing but failures so far, or no prediction: what surely fits
            return self._points[_best((prior if informed else 0.0) + 10 * np.log(fits), free)]
        gain = self._improvement(seen, prior if informed else np.zeros(len(prior)))
        return self._points[_best(np.log(gain) + np.log(fits), free)]

    def _improvement(self, seen: Seen, prior: np.ndarray) -> np.ndarray:
        """Expected improvement of every point over the best measured one, in logarithms of the objective."""
        tried = list(seen.measured)
        values = self._sign * np.log([seen.measured[number] for number in tried])
        errors = values - prior[tried]
        offset = float(np.mean(errors))
        model = _process(self._features.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self._features[tried], errors - offset)
        pending = list(seen.running)
        if pending:  # as if they came out as expected, so that no two ask the same question
            believed = model.predict(self._features[pending])
            model = GaussianProcessRegressor(model.kernel_, alpha=1e-8, optimizer=None)
            known = np.concatenate([errors - offset, believed])
            model.fit(self._features[[*tried, *pending]], known)
        mean, spread = model.predict(self._features, return_std=True)
        better = prior + mean + offset - values.max()
        spread = np.maximum(spread, 1e-6)
        ratio = better / spread
        gain: np.ndarray = better * norm.cdf(ratio) + spread * norm.pdf(ratio)
        floored: np.ndarray = np.maximum(gain, 1e-30)
        return floored

    def _fits(self, seen: Seen) -> np.ndarray:
        """How likely each point fits, by where memory has ended so far."""
        ends = np.linspace(-1.5, 0.3, 361)
        belief = np.log(sum(share * norm.pdf(ends, mean, spread) for share, mean, spread in _BOUNDARY))
        load = self._predicted.load
        for number in seen.measured:
            belief += norm.logcdf((ends - load[number]) / _BOUNDARY_WIDTH)
        for number in seen.out_of_memory:
            belief += norm.logsf((ends - load[number]) / _BOUNDARY_WIDTH)
        weights = np.exp(belief - belief.max())
        weights /= weights.sum()
        chances: np.ndarray = norm.cdf((ends[None, :] - load[:, None]) / _BOUNDARY_WIDTH) @ weights
        clipped: np.ndarray = np.clip(chances, 1e-12, 1.0)
        return clipped

    def _recalibrate(self, seen: Seen) -> None:
        """Fit the planner's constants again each time that half as many results have come in."""
        count = len(seen.measured)
        if count < max(_SHORTEST_FIT, 1.5 * self._recalibrated_at):
            return
        self._recalibrated_at = count
        software = recalibrated(self._points, seen.measured, self._objective)
        self._predicted = predict(self._points, self._objective, software)


def recalibrated(
    points: Sequence[Point], measured: dict[int, float], objective: str
) -> dict[int, SoftwareSpec]:
    """The rates that suit the measured points best, by the id of each work; empty where none are known."""
    works = {id(point.work): point.work for point in points}
    machines = [work.machine for work in works.values()]
    if any(work.software is None for work in works.values()) or any(m != machines[0] for m in machines):
        return {}
    sign = 1.0 if OBJECTIVES[objective] else -1.0
    runs = []
    tried = [points[number] for number in measured]
    for point, own in zip(tried, predict(tried, objective).objective, strict=True):
        ratio = (measured[point.number] / own) ** sign
        speed = float(tokens_per_s(point.work, point.candidate)[0]) * ratio
        runs.append(Measured(point.work, point.candidate, speed))
    keys = usable(runs)
    constants = fit(runs, keys, rounds=4) if keys else {}
    return {
        identity: with_constants(work.software, constants)
        for identity, work in works.items()
        if work.software is not None
    }


def features(points: Sequence[Point]) -> np.ndarray:
    """n points as numbers in [0, 1]: a column a key of numbers (logarithms if positive), or one a choice."""
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


def _process(dims: int) -> GaussianProcessRegressor:
    """Errors of some percent that change slowly with the keys, and noise of a percent or so."""
    shape = RBF(np.full(dims, 0.7), (0.2, 10.0))
    kernel = ConstantKernel(0.01, (1e-4, 0.25)) * shape + WhiteKernel(1e-4, (1e-6, 1e-2))
    return GaussianProcessRegressor(kernel, alpha=1e-8)


def _best(score: np.ndarray | float, free: np.ndarray) -> int:
    return int(np.argmax(np.where(free, score, -np.inf)))
