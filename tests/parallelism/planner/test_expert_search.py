"""The search of models with experts: what is shared, and the forms of dispatch."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from frontrunner.configs.load import load_run
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.advise import advise
from frontrunner.parallelism.planner.candidates import Candidates, Rows, Workload
from frontrunner.parallelism.planner.choose import simplest
from frontrunner.parallelism.planner.plan import estimate
from frontrunner.parallelism.planner.search import Ranking, search
from support.experts import MIXED, MIXTRAL, QWEN3, spec_of


def ranked(model: dict[str, Any], nodes: int, batch: int) -> Ranking:
    return search(Workload.of(spec_of(model, nodes=nodes, batch=batch)), nodes, batch)


@pytest.mark.parametrize(("model", "nodes", "batch"), [(MIXED, 2, 32), (MIXTRAL, 4, 64), (QWEN3, 3, 48)])
def test_what_layouts_share_is_what_each_has(model: dict[str, Any], nodes: int, batch: int) -> None:
    ranking = ranked(model, nodes, batch)
    shared, alone = ranking.estimated, estimate(ranking.estimated.workload, ranking.space.candidates)
    shapes = ranking.space.shared.shapes
    assert isinstance(shapes, Rows) and len(ranking.space.candidates) > 2 * len(shapes.one) > 300
    assert shared.time and alone.time
    for one, other in ((shared.memory, alone.memory), (shared.time, alone.time)):
        for field in fields(one):
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


@pytest.mark.parametrize(("model", "nodes", "batch"), [(MIXED, 2, 32), (QWEN3, 4, 64)])
def test_what_is_found_is_judged_as_a_plan_of_it(
    model: dict[str, Any], nodes: int, batch: int, tmp_path: Path
) -> None:
    ranking = ranked(model, nodes, batch)
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(model))
    run = [f"model={tmp_path / 'model.yaml'}", f"nodes={nodes}", f"training.global_batch_size={batch}"]
    forms = set()
    for index in random.Random(1).sample(range(len(ranking.space.candidates)), 60):
        layout = ranking.space.layout(index)
        overrides = [f"layout.{key}={json.dumps(value)}" for key, value in layout.items()]
        spec = load_run("gpt-22b-frontier", [*run, *overrides]).spec
        alone = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
        assert alone.memory.peak[0] == pytest.approx(ranking.estimated.memory.peak[index])
        assert alone.tokens_per_s[0] == pytest.approx(ranking.estimated.tokens_per_s[index])
        forms.add((layout["dispatch"], layout["expert"] > 1))
    assert {("hierarchical", False), ("hierarchical", True), ("flat", True)} <= forms


def test_no_two_layouts_are_one_and_flat_ones_have_two_hops() -> None:
    space = ranked(MIXED, 2, 32).space
    ways = [json.dumps(space.layout(index), sort_keys=True) for index in range(len(space.candidates))]
    assert len(set(ways)) == len(ways)
    c = space.candidates
    assert set(c.expert) == {1, 2, 4, 8}
    # Sixteen devices on two nodes: a group of experts is on both with 2 or 4 ranks on each.
    flat = c.flat_dispatch > 0
    assert {(t, e) for t, e in zip(c.tensor[flat], c.expert[flat], strict=True)} == {(2, 8), (4, 4)}


def test_the_simplest_layout_has_no_expert_ranks_where_they_gain_little() -> None:
    ranking = ranked(MIXED, 2, 32)
    choice = simplest(ranking)
    assert choice and ranking.space.candidates.expert[choice.index] == 1


def test_advice_knows_the_degree_of_experts() -> None:
    """Of 29e9 parameters of experts a 16th does not fit beside the rest, at 18 bytes each; a 32nd does."""
    spec = spec_of(QWEN3, nodes=4, batch=32, preset="ddp", layout={"expert": 16, "recompute": "full"})
    now = estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
    assert not now.fits[0]
    found = {advice.option: advice for advice in advise(spec, now, most=100)}
    changed = spec.model_copy(update={"layout": spec.layout.model_copy(update={"expert": 32})})
    then = estimate(now.workload, Candidates.of(changed, Layout.from_spec(changed)))
    advice = found["-o layout.expert=32"]
    assert then.fits[0] and advice.fits
    assert advice.gain == pytest.approx(then.tokens_per_s[0] / now.tokens_per_s[0] - 1)


def test_where_nothing_is_legal_nothing_is_found() -> None:
    ranking = search(Workload.of(spec_of(MIXTRAL, nodes=4)), 5, 7)
    assert len(ranking.space.candidates) == len(ranking.order) == 0
