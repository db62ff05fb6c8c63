"""What a search believes of the planner's errors: Gaussian processes over the keys of a space.

An error is a constant and what changes with the keys. How large both are nobody knows beforehand, so that
several such processes are held side by side, and weighed by how well they explain the trials so far: a few
trials are too few to fit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Belief:
    """About an error (logarithm): ``share`` of it beforehand, ``mean``, and standard deviations of its
    ``constant`` part, of what the ``keys`` change (over a ``length``, where a key's whole range is 1) and of
    the ``noise``."""

    share: float
    mean: float
    constant: float
    keys: float
    length: float
    noise: float

    @property
    def variance(self) -> float:
        """Of the error at any point, without noise."""
        return self.constant**2 + self.keys**2

    def covariances(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Of the errors [n, m] at points with features [n, keys] and [m, keys]."""
        distance = np.square(one[:, None, :] - other[None, :, :]).sum(axis=-1)
        covariances: np.ndarray = self.constant**2 + self.keys**2 * np.exp(-distance / (2 * self.length**2))
        return covariances


def average(
    beliefs: Sequence[Belief], evidence: Sequence[float], answers: Sequence[np.ndarray]
) -> np.ndarray:
    """The beliefs' answers [n] by their shares and the ``evidence``, the logarithm of how likely all was."""
    weights = np.log([belief.share for belief in beliefs]) + np.array(evidence)
    shares = np.exp(weights - weights.max())
    mean: np.ndarray = shares @ np.array(answers) / shares.sum()
    return mean
