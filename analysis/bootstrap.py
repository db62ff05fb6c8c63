"""Intervals for medians by resampling, without drawing the resamples.

The median of n draws with replacement from n sorted values is the value at the place that the middle of n
uniform numbers gives, whose distribution is Beta's; for even n the mean of the two in the middle. One draw of
Beta stands for a resample of any length, so that a study of thousands of runs takes no time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
SAMPLES = 1000
LEVEL = 0.95


def medians(values: Array, generator: np.random.Generator, samples: int = SAMPLES) -> Array:
    """Medians [samples] of resamples of ``values`` [n], n > 0."""
    ordered, n = np.sort(values), len(values)
    if n % 2:
        half = (n + 1) / 2
        return np.asarray(ordered[_places(generator.beta(half, half, samples), n)])
    lower = generator.beta(n / 2, n / 2 + 1, samples)
    # The next of the n/2 numbers that are left above the lower one: the least of as many uniform ones.
    above = 1 - (1 - generator.random(samples)) ** (1 / (n / 2))
    upper = lower + (1 - lower) * above
    return np.asarray((ordered[_places(lower, n)] + ordered[_places(upper, n)]) / 2)


def interval(samples: Array) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _places(uniform: Array, n: int) -> npt.NDArray[np.intp]:
    return np.minimum((uniform * n).astype(np.intp), n - 1)
