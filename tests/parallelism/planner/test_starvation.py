"""A batch that is too small for a machine is told, and no other."""

from __future__ import annotations

import pytest

from frontrunner.launcher.commands.search import request
from frontrunner.parallelism.planner import starvation
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.headroom import with_margin
from frontrunner.parallelism.planner.search import Ranking, search
from frontrunner.parallelism.planner.starvation import GAIN, LARGER, starved


def judged(model: str, nodes: int, seq_len: int, batch: int) -> Ranking:
    return with_margin(search(Workload.of(request(model, "frontier", nodes, seq_len)), nodes, batch))[0]


def test_8b_on_1024_nodes_with_a_batch_of_4096() -> None:
    found = starved(judged("llama-3-8b", 1024, 2048, 4096), 1024, 4096, 0.05)
    assert found and found.global_batch_size == 8 * 4096
    larger = judged("llama-3-8b", 1024, 2048, 8 * 4096)
    best = float(larger.estimated.tokens_per_s[larger.order[0]])
    assert 0.95 * best <= found.larger_speed <= best, "of plain layouts"
    assert found.gain == found.larger_speed / found.speed > GAIN


@pytest.mark.parametrize(
    ("model", "nodes", "seq_len", "batch"),
    [("llama-3-8b", 64, 8192, 512), ("gpt-175b", 384, 2048, 3072), ("gpt-22b", 2, 2048, 64)],
)
def test_usual_batches_do_not_starve(model: str, nodes: int, seq_len: int, batch: int) -> None:
    assert starved(judged(model, nodes, seq_len, batch), nodes, batch, 0.05) is None


def test_the_short_cut_misses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where computing takes most of a step, a search of the larger batch would find no such gain either."""
    for nodes in (1, 16, 128):
        for batch in (64, 512):
            ranking = judged("llama-3-8b", nodes, 2048, batch)
            short = starved(ranking, nodes, batch, 0.05)
            with monkeypatch.context() as patch:
                patch.setattr(starvation, "_BUSY", 2.0)
                assert starved(ranking, nodes, batch, 0.05) == short


def test_the_factor_is_said() -> None:
    found = starved(judged("llama-3-8b", 512, 2048, 64), 512, 64, 0.05)
    assert found and found.global_batch_size == LARGER * 64
