"""The planner's peak of memory beside the tensors that ranks really have, in every preset."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from emulated_runs import Engine, run_spec
from predictions import predicted_peak_bytes

from frontrunner.configs.sharding import SHARDING_PRESETS
from support.peaks import largest_peak_bytes
from support.ranks import run_ranks


@pytest.mark.long_except("three_level", "zero3")
@pytest.mark.parametrize("preset", SHARDING_PRESETS)
def test_the_peak_is_within_five_percent(preset: str) -> None:
    """Eight devices of one node."""
    engine = Engine(preset, {"preset": preset})
    spec = run_spec(1, 1, 64, engine)
    peak = max(run_ranks(8, largest_peak_bytes, engine, spec))
    assert predicted_peak_bytes(spec) == pytest.approx(peak, rel=0.05)
