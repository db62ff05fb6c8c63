"""Days and node-hours for a number of tokens, and which number of nodes to take."""

from __future__ import annotations

import math

import pytest

from frontrunner.launcher.commands.search import request
from frontrunner.parallelism.planner import campaign
from frontrunner.parallelism.planner.campaign import (
    DAY_S,
    START_S,
    Limits,
    Option,
    Span,
    ladder,
    options,
    recommended,
    rule,
    span,
)
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.headroom import usable_bytes
from frontrunner.parallelism.planner.search import search
from frontrunner.parallelism.planner.uncertainty import RELATIVE_MEDIAN_PCT

TWELVE_H = 12 * 3600.0


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload.of(request("llama-3-8b", "lumi-g", 1, 8192))


@pytest.fixture(scope="module")
def found(workload: Workload) -> list[Option]:
    counts = ladder(2978)
    return [*options(workload, 300e9, 512, counts, lambda nodes: TWELVE_H, Limits(), 0.05)]


def option(nodes: int, days: float) -> Option:
    return Option(nodes, {}, {}, 1, Span(days * DAY_S, days * DAY_S, 0, 0, None))


#: 1,200, 1,440, 1,872 and 3,840 node-hours.
CURVE = [option(1, 50), option(2, 30), option(4, 19.5), option(16, 10), Option(32)]


def test_a_ladder_of_nodes() -> None:
    assert ladder(20) == [1, 2, 3, 4, 6, 8, 12, 16]
    assert ladder(1) == [1]


def test_a_run_by_hand(workload: Workload) -> None:
    """Young's interval, its cost, half of it and a start for each failure, a start for each job."""
    nodes, training_s = 64, 10.0 * DAY_S
    mtbf_s = 2.28e7 / 64
    write_s = 12 * 8.03e9 / (64 * 5.8e8)
    every = math.sqrt(2 * write_s * mtbf_s)
    lost = (every / 2 + START_S) / mtbf_s + START_S / TWELVE_H
    total = training_s * (1 + write_s / every) / (1 - lost)
    run = span(workload, nodes, training_s, TWELVE_H)
    assert run and run.training_s == training_s
    assert run.total_s == pytest.approx(total, rel=1e-3), "8.03e9 parameters are rounded"
    assert run.failures == pytest.approx(total / mtbf_s, rel=1e-3)
    assert run.checkpoint_interval_s == pytest.approx(every, rel=1e-3)
    assert run.checkpoints == int(training_s / (run.checkpoint_interval_s or 1)) + 1


def test_a_short_run_has_one_start(workload: Workload) -> None:
    run = span(workload, 1, 60.0, math.inf)
    assert run and run.total_s == 60 + START_S


def test_jobs_too_short_to_train_give_none(workload: Workload) -> None:
    assert span(workload, 1, 3600.0, START_S * 1.5) is None


def test_without_failure_rates_only_starts_count(workload: Workload) -> None:
    machine = workload.machine.model_copy(update={"reliability": None})
    run = span(Workload(**{**vars(workload), "machine": machine}), 64, 10.0 * DAY_S, TWELVE_H)
    assert run and run.total_s == pytest.approx(10 * DAY_S / (1 - START_S / TWELVE_H))
    assert (run.failures, run.checkpoints, run.checkpoint_interval_s) == (0, 0, None)


def test_options_are_layouts_of_the_search(workload: Workload, found: list[Option]) -> None:
    """Days follow from the speed; layouts are plain, leave the margin, and are in the first group."""
    assert {1, 32, 128} <= {each.nodes for each in found}
    for each in found:
        ranking = search(workload, each.nodes, 512, plain=True)
        peak, speed = each.figures["peak_memory_bytes_per_device"], each.figures["tokens_per_s_per_device"]
        roomy = ranking.estimated.memory.peak[ranking.order] <= usable_bytes(workload.machine)
        best = ranking.estimated.tokens_per_s[ranking.order[roomy][0]]
        assert best / (1 + RELATIVE_MEDIAN_PCT / 100) <= speed <= best
        assert peak <= usable_bytes(workload.machine)
        assert each.span and each.span.training_s == pytest.approx(300e9 / (speed * 8 * each.nodes))
        assert each.node_hours == pytest.approx(each.span.total_s / 3600 * each.nodes)


def test_the_ladder_ends_where_nodes_only_wait(found: list[Option]) -> None:
    least = min(each.node_hours for each in found)
    assert [each.nodes for each in found if each.node_hours > 3 * least] == [found[-1].nodes]


def test_what_cannot_fit_is_said_without_a_search() -> None:
    workload = Workload.of(request("gpt-175b", "frontier", 1, 2048))
    counts = [1, 2, 4, 6, 8]
    found = [*options(workload, 1e9, 2048, counts, lambda nodes: math.inf, Limits(), 0.05)]
    assert [(each.nodes, each.fits) for each in found] == [(n, n == 8) for n in counts]
    ranking = search(workload, 6, 2048, plain=True)
    assert ranking.estimated.memory.peak.min() > usable_bytes(workload.machine), "the search agrees"


@pytest.mark.parametrize(
    ("limits", "nodes"),
    [
        (Limits(), 2),
        (Limits(node_hours=1300), 1),
        (Limits(node_hours=1500), 2),
        (Limits(node_hours=9000), 2),
        (Limits(days=100), 1),
        (Limits(days=30), 2),
        (Limits(days=12), 16),
        (Limits(days=25, node_hours=2000), 4),
        (Limits(days=12, node_hours=2000), None),
        (Limits(days=9), None),
        (Limits(node_hours=1000), None),
    ],
)
def test_the_rule(limits: Limits, nodes: int | None) -> None:
    taken = recommended(CURVE, limits)
    assert (taken.nodes if taken else None) == nodes


def test_the_rule_in_words() -> None:
    assert rule(Limits()) == "the fastest that costs at most 25 % more than the cheapest"
    assert rule(Limits(20000)) == (
        "the fastest within 20,000 node-hours that costs at most 25 % more than the cheapest"
    )
    assert rule(Limits(days=30)) == "the fewest node-hours within 30 days"
    assert rule(Limits(20000, 30)) == "the fewest node-hours within 30 days and 20,000 node-hours"


def test_no_layout_is_faster_than_the_peak(workload: Workload, found: list[Option]) -> None:
    for each in found:
        assert each.days > campaign.days_at_peak(workload, 300e9, each.nodes) > 0
