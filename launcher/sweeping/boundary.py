"""The memory limit, learnt from trials that fitted and trials that did not.

A point fits if its load (log of planned peak over memory) is below an unknown limit: an allocator keeps more
than the planner predicts, and the excess depends on the layout. Each belief about that limit is conditioned
on yes/no outcomes by expectation propagation (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, section 3.6).
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from frontrunner.launcher.sweeping.beliefs import Belief, average

#: Most likely within what the planner's peaks are off by; on a machine of which it does not know all, further
#: below, and perhaps not the same for all layouts.
#: The length is what did best on random spaces with such ends.
BELIEFS = (
    Belief(0.94, mean=0.0, constant=0.05, keys=0.0, length=1.0, noise=0.01),
    Belief(0.03, mean=-0.15, constant=0.4, keys=0.0, length=1.0, noise=0.01),
    Belief(0.03, mean=-0.15, constant=0.4, keys=0.3, length=2.0, noise=0.05),
)
_ROUNDS, _DAMPING = 60, 0.7
_LEAST = 1e-12


def chances(load: np.ndarray, features: np.ndarray, fitted: list[int], too_large: list[int]) -> np.ndarray:
    """Probability that each of n points fits: ``load`` [n], ``features`` [n, keys], tried indices."""
    tried = [*fitted, *too_large]
    answers = np.array([1.0] * len(fitted) + [-1.0] * len(too_large))
    found, evidence = [], []
    for belief in BELIEFS:
        margins = belief.mean - load
        covariances = belief.covariances(features, features[tried])
        conditioned = Conditioned(covariances[tried], margins[tried], answers, belief.noise)
        mean, variance = conditioned.predict(covariances, belief.variance)
        found.append(norm.cdf((margins + mean) / np.sqrt(belief.noise**2 + variance)))
        evidence.append(conditioned.evidence)
    clipped: np.ndarray = np.clip(average(BELIEFS, evidence, found), _LEAST, 1.0)
    return clipped


class Conditioned:
    """A process of mean 0 at m points, where its sum with ``margins`` and noise has the sign of ``answers``.

    ``evidence`` is the log likelihood of the answers. Each answer is approximated by a Gaussian (its site)
    with natural parameters ``_precision`` and ``_pull``.
    """

    def __init__(
        self, covariances: np.ndarray, margins: np.ndarray, answers: np.ndarray, noise: float
    ) -> None:
        self._covariances = covariances
        self._precision, self._pull = np.zeros_like(margins), np.zeros_like(margins)
        self.evidence = 0.0
        for _ in range(_ROUNDS if margins.size else 0):
            posterior = self._posterior()
            spread = np.maximum(np.diag(posterior), _LEAST)
            mean = posterior @ self._pull
            # The cavity: without its own site.
            cavity = np.maximum(1 / spread - self._precision, _LEAST)
            center = (mean / spread - self._pull) / cavity
            width = np.sqrt(noise**2 + 1 / cavity)
            z = answers * (center + margins) / width
            likelihood = norm.logcdf(z)
            self.evidence = self._evidence(posterior, likelihood, cavity, center)
            # The moments of the cavity times the answer.
            slope = np.exp(norm.logpdf(z) - likelihood)
            moved = center + answers * slope / (cavity * width)
            narrowed = np.maximum(1 / cavity - slope * (z + slope) / (cavity * width) ** 2, _LEAST)
            self._precision += _DAMPING * (np.maximum(1 / narrowed - cavity, 0.0) - self._precision)
            self._pull += _DAMPING * (moved / narrowed - center * cavity - self._pull)

    def predict(self, covariances: np.ndarray, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances [n] at points with covariances [n, m] to the m points."""
        if not self._pull.size:
            return np.zeros(len(covariances)), np.full(len(covariances), variance)
        root, factor = self._factor()
        mean = covariances @ (self._pull - root * cho_solve(factor, root * (self._covariances @ self._pull)))
        scaled = covariances * root
        explained = (scaled * cho_solve(factor, scaled.T).T).sum(axis=1)
        return mean, np.maximum(variance - explained, 0.0)

    def _factor(self) -> tuple[np.ndarray, tuple[np.ndarray, bool]]:
        """The square root of the sites' precision, and a factor of the matrix to invert, whose eigenvalues
        are at least 1."""
        root = np.sqrt(self._precision)
        return root, cho_factor(np.eye(root.size) + root[:, None] * self._covariances * root)

    def _posterior(self) -> np.ndarray:
        """Covariances between the m points."""
        root, factor = self._factor()
        scaled = root[:, None] * self._covariances
        posterior: np.ndarray = self._covariances - scaled.T @ cho_solve(factor, scaled)
        return posterior

    def _evidence(
        self, posterior: np.ndarray, likelihood: np.ndarray, cavity: np.ndarray, center: np.ndarray
    ) -> float:
        """The integral of the prior times all sites, each scaled to the likelihood of its answer."""
        _, (triangle, _) = self._factor()
        together = 0.5 * (self._pull @ posterior @ self._pull) - np.log(np.diag(triangle)).sum()
        precision = cavity + self._precision
        moved = (cavity * center + self._pull) ** 2 / precision - cavity * center**2
        return float(together + (likelihood + 0.5 * (np.log(precision / cavity) - moved)).sum())
