"""What trials that fitted and trials that did not say of where memory ends."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy.stats import norm

from frontrunner.launcher.sweeping.boundary import Conditioned, chances

ENDS = np.linspace(-4, 4, 80001)


@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize("deviation", [0.1, 0.4])
@pytest.mark.parametrize(
    ("loads", "answers"),
    [
        ([-0.5], [1.0]),
        ([-0.3], [-1.0]),
        ([-0.9, -0.5, 0.0], [1.0, 1.0, -1.0]),
        ([-0.3, -0.5], [1.0, -1.0]),
        ([-0.6, -0.5, -0.4, -0.3, -0.2, 0.0], [1.0, 1.0, -1.0, 1.0, -1.0, -1.0]),
    ],
)
def test_one_end_for_all(loads: list[float], answers: list[float], deviation: float, noise: float) -> None:
    """Its mean, variance and evidence by expectation propagation are those of an integration within 6 %."""
    exact = norm.pdf(ENDS, 0, deviation) * (ENDS[1] - ENDS[0])
    for load, answer in zip(loads, answers, strict=True):
        exact = exact * norm.cdf(answer * (ENDS - load) / noise)
    mean = ENDS @ exact / exact.sum()
    variance = (ENDS - mean) ** 2 @ exact / exact.sum()
    count = len(loads)
    found = Conditioned(np.full((count, count), deviation**2), -np.array(loads), np.array(answers), noise)
    own_mean, own_variance = found.predict(np.full((1, count), deviation**2), deviation**2)
    assert found.evidence == pytest.approx(np.log(exact.sum()), abs=0.06)
    assert own_mean[0] == pytest.approx(mean, abs=0.03 * deviation)
    # Answers that say the same twice (fitted at -0.9 and at -0.5) leave it too wide (Cunningham et al. 2011).
    assert own_variance[0] == pytest.approx(variance, rel=0.3 if len(loads) == 3 else 0.06)


def test_nothing_is_known_beforehand() -> None:
    """What is predicted to take all of the memory fits or does not."""
    found = chances(np.array([-0.3, -0.1, 0.0, 0.1]), np.zeros((4, 1)), [], [])
    assert (np.diff(found) < 0).all()
    assert found[2] == pytest.approx(0.5, abs=0.02)
    assert found[0] > 0.95


def test_one_surprise_moves_the_end() -> None:
    """Far below what the planner's peaks are off by: then it is a machine of which it does not know all."""
    loads = np.array([-0.5, -0.4, -0.35, -0.25])
    before, after = (chances(loads, np.zeros((4, 1)), [], tried) for tried in ([], [2]))
    assert before[2] > 0.95
    assert after[3] < 0.1
    assert 0.2 < after[0] < 0.8


def test_the_end_may_depend_on_a_key() -> None:
    """A kind of layout that takes more than the planner says is left alone, and the other is not."""
    kind = np.array([0.0, 1.0] * 6)[:, None]
    load = np.repeat([-1.2, -1.0, -0.8, -0.6, -0.4, -0.2], 2)
    before = chances(load, kind, [], [])
    assert before == pytest.approx(np.repeat(before[::2], 2))
    after = chances(load, kind, [4, 6], [1, 3, 5])  # kind 0 fits up to -0.6, kind 1 not even at -1.2
    assert after[8] > 5 * after[7]  # at -0.4 and -0.6


def test_many_trials_are_no_trouble() -> None:
    """Hundreds of answers that contradict each other."""
    random = np.random.default_rng(0)
    load, keys = random.normal(0, 0.3, 200), random.uniform(size=(200, 5))
    fitted = (random.uniform(size=200) < 0.5).nonzero()[0].tolist()
    found = chances(load, keys, fitted, sorted(set(range(200)) - set(fitted)))
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
