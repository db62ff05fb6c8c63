"""Layouts leave a margin of memory free, and what that leaves out is counted."""

from __future__ import annotations

import numpy as np
import pytest

from frontrunner.configs.load import load_machine
from frontrunner.launcher.commands.search import USUAL_MARGIN, request
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.choose import simplest
from frontrunner.parallelism.planner.headroom import (
    CONTEXT_BYTES,
    MARGIN,
    largest_margin,
    usable_bytes,
    with_margin,
)
from frontrunner.parallelism.planner.search import Ranking, search


@pytest.fixture(scope="module")
def ranking() -> Ranking:
    return search(Workload.of(request("llama-3-8b", "lumi-g", 2, None)), 2, 1024)


def test_a_margin_and_the_runtime_of_a_device() -> None:
    assert usable_bytes(load_machine("frontier"), 0.1) == 0.9 * 64 * 2**30 - CONTEXT_BYTES
    emulated = load_machine("emulated")
    assert usable_bytes(emulated, 0.1) == 0.9 * emulated.device.memory_bytes, "a CPU has no such runtime"


@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
def test_what_remains_leaves_it_free_and_the_rest_is_counted(ranking: Ranking, margin: float) -> None:
    roomy, left_out = with_margin(ranking, margin)
    limit = (1 - margin) * 64 * 2**30 - CONTEXT_BYTES
    peak = ranking.estimated.memory.peak
    assert [*roomy.order] == [index for index in ranking.order if peak[index] <= limit]
    assert left_out == np.count_nonzero((peak > limit) & (peak <= 64 * 2**30)) > 0


def test_the_largest_margin_leaves_just_one(ranking: Ranking) -> None:
    largest = largest_margin(ranking)
    assert len(with_margin(ranking, largest - 1e-6)[0].order) >= 1
    assert len(with_margin(ranking, largest + 1e-6)[0].order) == 0


def test_a_choice_leaves_the_usual_margin(ranking: Ranking) -> None:
    choice = simplest(ranking)
    assert choice
    assert ranking.estimated.memory.peak[choice.index] <= usable_bytes(load_machine("lumi-g"))


def test_the_default_of_commands_is_the_planners() -> None:
    assert USUAL_MARGIN == MARGIN
