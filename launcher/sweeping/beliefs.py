"""Models of the planner's errors: Gaussian processes over the keys of a space.

An error has a constant part and a part that varies with the keys. Their sizes are unknown beforehand, and a
few trials are too few to fit them. So several processes are kept, weighted by how well they explain the
trials so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Belief:
    """A prior on a log error: its weight ``share``, its ``mean``, and the standard deviations of the
    ``constant`` part, of the part that varies with the ``keys`` (length scale ``length``; a key's whole range
    is 1) and of the ``noise``."""

    share: float
    mean: float
    constant: float
    keys: float
    length: float
    noise: float

    @property
    def variance(self) -> float:
        """Prior variance of the error at any point, without noise."""
        return self.constant**2 + self.keys**2

    def covariances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Covariance of the errors [n, m] at points with features [n, keys] and [m, keys]."""
        distance = np.square(one[:, None, :] - other[None, :, :]).sum(axis=-1)
        covariances: np.ndarray = self.constant**2 + self.keys**2 * np.exp(-distance / (2 * self.length**2))
        return covariances


def average(
    beliefs: Sequence[Belief], evidence: Sequence[float], answers: Sequence[np.ndarray]
) -> np.ndarray:
    """The beliefs' answers [n], weighted by share and log ``evidence``."""
    weights = np.log([belief.share for belief in beliefs]) + np.array(evidence)
    shares = np.exp(weights - weights.max())
    mean: np.ndarray = shares @ np.array(answers) / shares.sum()
    return mean
