"""Real runs whose ranks are killed, a few times: the benchmark does it thirty times."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import kill_and_continue


@pytest.mark.long
def test_killed_runs_come_back_exactly(tmp_path: Path) -> None:
    tally = kill_and_continue(tmp_path / "faults", kills=2, seed=7)
    assert tally.faults == []
    assert (tally.kills, tally.in_writing) == (2, 1)
