"""The search: only legal layouts, each judged as a plan of it is, ranked by speed."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.advise import advise
from frontrunner.parallelism.planner.candidates import Candidates, Rows, Workload
from frontrunner.parallelism.planner.plan import estimate
from frontrunner.parallelism.planner.search import Ranking, compare, search


def request(model: str, nodes: int, batch: int, layout: dict[str, Any] | None = None) -> RunSpec:
    overrides = [f"model={model}", f"nodes={nodes}", f"training.global_batch_size={batch}"]
    chosen = layout or {"pipeline": 1}
    # Key by key: a mapping would be merged with the preset's.
    overrides += [f"layout.{key}={json.dumps(value)}" for key, value in chosen.items()]
    return load_run("gpt-22b-frontier", overrides).spec


def ranked(model: str, nodes: int, batch: int) -> Ranking:
    return search(Workload.of(request(model, nodes, batch)), nodes, batch)


@pytest.mark.parametrize(
    ("model", "nodes", "batch"), [("gpt-22b", 4, 96), ("llama-3-8b", 1, 8), ("gpt-1.4b", 3, 48)]
)
def test_what_is_found_is_legal_and_judged_as_alone(model: str, nodes: int, batch: int) -> None:
    ranking = ranked(model, nodes, batch)
    assert len(ranking.order) > 10
    chosen = random.Random(1).sample(range(len(ranking.space.candidates)), 40)
    for index in [*chosen, *map(int, ranking.order[:3])]:
        spec = request(model, nodes, batch, ranking.space.layout(index))
        alone = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
        assert alone.memory.peak[0] == pytest.approx(ranking.estimated.memory.peak[index])
        assert alone.tokens_per_s[0] == pytest.approx(ranking.estimated.tokens_per_s[index])


@pytest.mark.parametrize(
    ("model", "nodes", "batch"), [("gpt-22b", 4, 96), ("olmo-2-7b", 1, 8), ("llama-3-70b", 48, 384)]
)
def test_what_layouts_share_is_what_each_has(model: str, nodes: int, batch: int) -> None:
    """Every figure of every layout is the same, to the bit, as without sharing."""
    ranking = ranked(model, nodes, batch)
    shared, alone = ranking.estimated, estimate(ranking.estimated.workload, ranking.space.candidates)
    shapes = ranking.space.shared.shapes
    assert isinstance(shapes, Rows) and len(ranking.space.candidates) > 3 * len(shapes.one) > 300
    assert shared.time and alone.time
    for one, other in ((shared.memory, alone.memory), (shared.time, alone.time)):
        for field in fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def test_the_order_is_by_speed_and_only_of_what_fits() -> None:
    ranking = ranked("gpt-22b", 4, 96)
    speeds = ranking.estimated.tokens_per_s[ranking.order]
    assert np.all(np.diff(speeds) <= 0)
    assert np.all(ranking.estimated.fits[ranking.order] == 1)
    front = ranking.pareto()
    peaks = ranking.estimated.memory.peak
    assert front[0] == ranking.order[0]
    assert all(peaks[a] > peaks[b] for a, b in zip(front, front[1:], strict=False))
    fastest_lean = ranking.order[peaks[ranking.order] <= peaks[front[-1]]][0]
    assert fastest_lean == front[-1]


@pytest.mark.parametrize("run", ["gpt-175b-frontier", "gpt-1t-frontier"])
def test_the_layouts_of_dash_et_al_are_among_the_best(run: str) -> None:
    """In the first 5 % of what is legal, with the software that they were tuned with, and not the best."""
    known = load_run(run).spec
    ranking = search(Workload.of(known, "2023"), known.nodes, known.training.global_batch_size)
    place = ranking.place(Candidates.of(known, Layout.from_spec(known)))
    assert place is not None
    assert 0 < place < 0.05 * len(ranking.space.candidates)
    best = int(ranking.order[0])
    reasons = compare(ranking.estimated, int(ranking.order[place]), best)
    slower = ranking.estimated.tokens_per_s[best] / ranking.estimated.tokens_per_s[ranking.order[place]] - 1
    assert sum(reasons.values()) == pytest.approx(slower)
    assert max(reasons.values()) > 0.05


def test_no_two_layouts_are_one() -> None:
    ranking = ranked("gpt-22b", 4, 96)
    space = ranking.space
    ways = [json.dumps(space.layout(index), sort_keys=True) for index in range(len(space.candidates))]
    assert len(set(ways)) == len(ways)
    # A format of the network's own makes a difference only where gradients cross it after the micro-batches.
    whole = space.candidates.gradients == space.candidates.data
    assert not np.any(whole & (space.candidates.network_wire < 2))


def test_advice_is_what_a_plan_of_the_change_says() -> None:
    spec = load_run("gpt-175b-frontier", ["training.global_batch_size=64"]).spec
    now = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
    best = advise(spec, now)[0]
    assert best.gain > 0.1
    assert best.fits
    assert best.option == "-o training.global_batch_size=256"
    changed = load_run("gpt-175b-frontier", ["training.global_batch_size=256"]).spec
    then = estimate(Workload.of(changed), Candidates.of(changed, Layout.from_spec(changed)))
    assert then.tokens_per_s[0] / now.tokens_per_s[0] - 1 == pytest.approx(best.gain)


def test_advice_for_what_does_not_fit_makes_it_fit() -> None:
    spec = load_run("gpt-22b-frontier", ["layout.recompute=none", "layout.micro_batch_size=4"]).spec
    now = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
    assert not now.fits[0]
    advice = advise(spec, now)
    assert advice
    assert all(change.fits for change in advice)


def test_advice_knows_the_other_ways_to_cut_states() -> None:
    spec = load_run("gpt-22b-frontier", ["layout.pipeline=1", "layout.sharding.preset=ddp"]).spec
    now = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
    assert not now.fits[0]
    assert any(change.change.startswith("layout.sharding: ") for change in advise(spec, now))
