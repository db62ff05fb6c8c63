"""Searches on the measured space that is kept beside the benchmarks."""

from __future__ import annotations

import statistics

import pytest

pytest.importorskip("optuna")
pytest.importorskip("megatron.core")

from sweep_table import HERE, as_good_as_best, read, trials_until

from frontrunner.configs.load_sweep import load_sweep
from frontrunner.launcher.sweeping.space import points


def test_the_guided_search_needs_few_trials_of_the_measured_space() -> None:
    """A quarter of the points at most, for every seed, and fewer than a random search."""
    sweep = load_sweep(str(HERE / "sweep.yaml"))
    known = points(sweep)
    measured = read(HERE / "table.jsonl", known)
    assert len(known) == 72
    assert any(not each.fits for each in measured)
    assert len(as_good_as_best(measured, sweep.spec.objective)) < 10
    counts = {
        search: [trials_until(sweep, known, measured, search, seed) for seed in range(5)]
        for search in ("guided", "random")
    }
    assert max(counts["guided"]) <= len(known) / 4
    assert statistics.median(counts["guided"]) < statistics.median(counts["random"])
