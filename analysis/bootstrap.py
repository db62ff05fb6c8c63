"""Bootstrap intervals of medians, without drawing the resamples.

Draw n times with replacement from n sorted values. The median sits at the index given by the middle of n
uniform numbers, which follows a Beta distribution; for even n it is the mean of the two middle values. One
Beta draw therefore replaces a resample of any length, and a study of thousands of runs stays fast.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
SAMPLES = 1000
LEVEL = 0.95


def medians(values: Array, generator: np.random.Generator, samples: int = SAMPLES) -> Array:
    """Medians [samples] of resamples of ``values`` [n], n > 0."""
    lower, upper = _middle(len(values), generator, samples)
    ordered = np.sort(values)
    return np.asarray((ordered[lower] + ordered[upper]) / 2)


def median_interval(values: Array) -> tuple[float, float]:
    """The interval of the median of one series; series of equal length share their draws."""
    lower, upper = _draws(len(values))
    ordered = np.sort(values)
    return interval((ordered[lower] + ordered[upper]) / 2)


@lru_cache(maxsize=4096)
def _draws(n: int) -> tuple[Places, Places]:
    return _middle(n, np.random.default_rng(n), SAMPLES)


def _middle(n: int, generator: np.random.Generator, samples: int) -> tuple[Places, Places]:
    """Indices of the two middle values of each resample of n sorted values; equal for odd n."""
    if n % 2:
        half = (n + 1) / 2
        middle = _places(generator.beta(half, half, samples), n)
        return middle, middle
    lower = generator.beta(n / 2, n / 2 + 1, samples)
    # The next one up: the smallest of the n/2 uniform numbers that remain above the lower one.
    above = 1 - (1 - generator.random(samples)) ** (1 / (n / 2))
    return _places(lower, n), _places(lower + (1 - lower) * above, n)


def interval(samples: Array) -> tuple[float, float]:
    """The middle 95 %."""
    ordered, last = np.sort(samples), len(samples) - 1
    low, high = (round(last * share) for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(ordered[low]), float(ordered[high])


def _places(uniform: Array, n: int) -> Places:
    return np.minimum((uniform * n).astype(np.intp), n - 1)
