"""A simulated cluster: the planner is its physics, plus errors and noise.

The planner does not know two things about it: a smooth function of the keys (``error``, standard deviation of
the logarithm), and where memory really ends (``memory_error``). Measurements have noise. Everything follows
from the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from frontrunner.configs.sweep import OBJECTIVES
from frontrunner.launcher.sweeping.guided import features
from frontrunner.launcher.sweeping.space import Point, predict
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY

_WAVES = 60


@dataclass(frozen=True)
class Physics:
    """How much (standard deviation of the logarithm) this cluster differs from the planner."""

    error: float = 0.08
    memory_error: float = 0.02
    noise: float = 0.015


class SimulatedCluster:
    """Measures points at once."""

    def __init__(
        self, points: Sequence[Point], objective: str, seed: int, physics: Physics | None = None
    ) -> None:
        physics = physics or Physics()
        self._random = np.random.default_rng([seed, 1])
        self._noise = physics.noise
        predicted = predict(points, objective)
        sign = 1.0 if OBJECTIVES[objective] else -1.0
        odd = np.random.default_rng([seed, 2])
        table = features(points)
        self.truth = predicted.objective * np.exp(sign * physics.error * _smooth(table, odd))
        ends = predicted.load + physics.memory_error * _smooth(table, odd)
        self.fits = ends <= 0
        self._better = np.maximum if OBJECTIVES[objective] else np.minimum

    @property
    def best(self) -> float:
        """The best objective among points that fit, without noise."""
        return float(self._better.reduce(self.truth[self.fits]))

    def run(self, point: Point) -> tuple[float | None, str | None]:
        """The objective of a trial, or why it failed."""
        if not self.fits[point.number]:
            return None, OUT_OF_MEMORY
        return float(self.truth[point.number] * np.exp(self._random.normal(0, self._noise))), None

    def shortfall(self, point: Point) -> float:
        """By what share a point is truly worse than the best; 1 where it does not fit."""
        if not self.fits[point.number]:
            return 1.0
        ratio = float(self.truth[point.number]) / self.best
        return 1 - (ratio if self._better is np.maximum else 1 / ratio)


def _smooth(table: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A random function of n points with mean 0 and standard deviation 1: random Fourier features."""
    directions = random.normal(0, 1 / 0.7, (table.shape[1], _WAVES))
    phases = random.uniform(0, 2 * np.pi, _WAVES)
    weights = random.normal(0, 1, _WAVES)
    values: np.ndarray = np.cos(table @ directions + phases) @ weights
    scaled: np.ndarray = values * np.sqrt(2 / _WAVES)
    return scaled
