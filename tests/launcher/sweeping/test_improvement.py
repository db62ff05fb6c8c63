"""What trials say of the planner's error, and so of points that were not tried."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from frontrunner.launcher.sweeping.improvement import expected_improvement

#: Trials of one half of each key's range, and a point at the other end.
FEATURES = np.vstack([np.random.default_rng(0).uniform(0, 0.5, (12, 5)), np.ones((1, 5))])
TRIED = list(range(12))
SCATTER = 4 * FEATURES[:12, 0] - 1


def of_the_last(errors: np.ndarray, below: float, pending: tuple[int, ...] = ()) -> float:
    """Of a point that is predicted ``below`` the best value, after trials of the others with such errors."""
    prior = np.append(np.zeros(12), errors.max() - below)
    return float(expected_improvement(prior, FEATURES, TRIED, errors, list(pending))[12])


def test_a_planner_that_is_right_is_believed() -> None:
    """Where it was off by much, a point that it does not think of may be the best all the same."""
    assert of_the_last(0.4 * SCATTER, below=0.5) > 100 * of_the_last(0.01 * SCATTER, below=0.5)


def test_a_constant_error_does_not_matter() -> None:
    found = of_the_last(0.01 * SCATTER - 0.3, below=-0.3 + 0.02)
    assert found == pytest.approx(of_the_last(0.01 * SCATTER, below=0.02), rel=0.15)


def test_a_point_that_runs_promises_little_more() -> None:
    errors = 0.3 * SCATTER
    assert of_the_last(errors, below=1.0, pending=(12,)) < 0.1 * of_the_last(errors, below=1.0)
