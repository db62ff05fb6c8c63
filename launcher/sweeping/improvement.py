"""Expected improvement of a point over the best so far, from the planner and its errors on trials."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from frontrunner.launcher.sweeping.beliefs import Belief, average

_NOISE, _CONSTANT = 0.02, 0.5
#: The planner is off by some percent, or on a machine of which it does not know all by much more, each over
#: two lengths; and by a constant, which does not change the order of points.
BELIEFS = tuple(
    Belief(share / 2, mean=0.0, constant=_CONSTANT, keys=keys, length=length, noise=_NOISE)
    for keys, share in ((0.05, 0.6), (0.15, 0.2), (0.4, 0.2))
    for length in (0.7, 1.5)
)
_LEAST = 1e-30


def expected_improvement(
    prior: np.ndarray, features: np.ndarray, tried: list[int], values: np.ndarray, pending: list[int]
) -> np.ndarray:
    """Expected improvement of n points over the best value, in log objective (larger is better).

    ``prior`` [n] is the planner's prediction, ``features`` [n, keys]; ``values`` are the results at the
    indices ``tried``. Points ``pending`` are assumed to match their prediction, to avoid similar trials.
    """
    errors = values - prior[tried]
    found, evidence = [], []
    for belief in BELIEFS:
        covariances = belief.covariances(features, features[[*tried, *pending]])
        own = covariances[tried, : len(tried)] + belief.noise**2 * np.eye(len(tried))
        factor = cho_factor(own)
        explained = cho_solve(factor, errors)
        evidence.append(float(-0.5 * errors @ explained - np.log(np.diag(factor[0])).sum()))
        better = prior + covariances[:, : len(tried)] @ explained - values.max()
        spread = _spread(belief, covariances, [*tried, *pending])
        ratio = better / spread
        found.append(better * norm.cdf(ratio) + spread * norm.pdf(ratio))
    floored: np.ndarray = np.maximum(average(BELIEFS, evidence, found), _LEAST)
    return floored


def _spread(belief: Belief, covariances: np.ndarray, known: list[int]) -> np.ndarray:
    """Standard deviations [n] where the errors of m points are ``known``, by all ``covariances`` [n, m]."""
    factor = cho_factor(covariances[known] + belief.noise**2 * np.eye(len(known)))
    explained = (covariances * cho_solve(factor, covariances.T).T).sum(axis=1)
    spread: np.ndarray = np.sqrt(np.maximum(belief.variance - explained, 1e-12))
    return spread
