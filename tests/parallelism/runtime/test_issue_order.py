"""Ranks issue collectives in an order in which none waits for another for ever, whatever their timing."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import SHARDING_PRESETS
from support.issue_order import Call, Key, faults
from support.issue_runs import Way, issued
from support.ranks import run_ranks
from support.specs import SPARSE, run_spec, saving, sharing
from support.stream_specs import FOUR, QUANTISED, SPECS, small

EIGHT: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
#: On a GPU's streams, and on CPU ranks with two kinds of luck.
WAYS = [Way(streams=True), Way(streams=False, seed=1), Way(streams=False, seed=2)]
QUICK = {("zero3", 1), ("three_level", 2)}
PRODUCT = [
    pytest.param(preset, accumulation, marks=() if (preset, accumulation) in QUICK else pytest.mark.long)
    for preset in SHARDING_PRESETS
    for accumulation in (1, 2)
]


def check(spec: RunSpec, folder: Path | None = None) -> None:
    ranks = run_ranks(spec.world_size, issued, spec, WAYS, str(folder) if folder else None)
    for way, calls in zip(WAYS, zip(*ranks, strict=True), strict=True):
        assert all(len(of_rank) > 10 for of_rank in calls)
        assert faults(list(calls), one_at_a_time=way.streams) == []


@pytest.mark.parametrize(("preset", "accumulation"), PRODUCT)
def test_presets_with_tensor_and_pipeline_ranks(preset: Any, accumulation: int) -> None:
    layout = {"tensor": 2, "pipeline": 2, "sequence_parallel": True}
    check(small(EIGHT, accumulation, sharding=preset, wire=QUANTISED, layout=layout))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("preset", "accumulation"), PRODUCT)
def test_presets_on_data_parallel_ranks(preset: Any, accumulation: int, shared: bool) -> None:
    spec = small(FOUR, accumulation, sharding=preset, wire=QUANTISED)
    check(sharing(spec) if shared else spec)


@pytest.mark.long_except("ddp", "zero3")
@pytest.mark.parametrize("preset", SHARDING_PRESETS)
def test_presets_inside_a_node(preset: Any) -> None:
    """Where most sets of ranks are the same."""
    check(sharing(small({"packages": 2, "devices": 2}, 2, sharding=preset, wire=QUANTISED)))


@pytest.mark.long_except("zero3", "three_level")
@pytest.mark.parametrize("preset", SHARDING_PRESETS)
def test_presets_with_experts(preset: Any) -> None:
    """Over a node, and over two."""
    for expert in (4, 8):
        layout = {"expert": expert}
        check(small(EIGHT, 2, model=SPARSE, sharding=preset, wire=QUANTISED, layout=layout))


@pytest.mark.parametrize(
    "spec",
    [
        SPECS["verified"],
        SPECS["experts"],
        small(
            EIGHT, 2, model=SPARSE, sharding="zero3", layout={"expert": 2, "tensor": 2, "recompute": "full"}
        ),
        run_spec(
            **FOUR,
            sharding="zero1",
            layout={"pipeline": 2, "virtual_stages": 2},
            training={"steps": 2, "global_batch_size": 4},
        ),
        pytest.param(small(EIGHT, 4, sharding=(2, 4, 4), layout={"pipeline": 2}), marks=pytest.mark.long),
        pytest.param(small(EIGHT, 4, sharding=(1, 2, 2), layout={"pipeline": 2}), marks=pytest.mark.long),
        pytest.param(small(EIGHT, 2, sharding=(2, 4, 8)), marks=pytest.mark.long),
    ],
    ids=[
        "verified",
        "experts",
        "experts and tensor ranks",
        "virtual stages",
        "pipeline, cut in two and four",
        "pipeline, replicas",
        "eight ranks",
    ],
)
def test_layouts(spec: RunSpec) -> None:
    check(spec)


def test_checkpoints_in_the_background(tmp_path: Path) -> None:
    check(saving(small(FOUR, sharding="zero1"), background=True), tmp_path)


def test_another_order_on_one_rank_is_seen() -> None:
    """Two neighbours of rank 0's calls change places, wherever rank 1 takes part in both."""
    spec = small(FOUR, 2, sharding="three_level", wire=QUANTISED)
    first, *others = ([*calls] for (calls,) in run_ranks(4, issued, spec, [Way(streams=True)]))
    own = [call for call in first if call.what is not None]
    swapped = 0
    for place, (one, two) in enumerate(itertools.pairwise(own)):
        if 1 in one.key.ranks and 1 in two.key.ranks and one.key.group != two.key.group:
            swapped += 1
            found = faults([[*own[:place], two, one, *own[place + 2 :]], *others], one_at_a_time=True)
            assert len(found) == 1 and "wait for one another" in found[0]
    assert swapped > 5


def test_another_collective_on_one_rank_is_seen() -> None:
    key = Key("group", (0, 1), 0)
    ranks = [[Call(False, key, ("allreduce", size))] for size in (4, 8)]
    assert "other collectives" in faults(ranks, one_at_a_time=False)[0]
    assert "other collectives" in faults([ranks[0], []], one_at_a_time=False)[0]


def test_waiting_before_what_the_other_waits_for_is_seen() -> None:
    """Each rank waits for what the other has not issued yet; without the waits all is well."""
    one, two = Key("one", (0, 1), 0), Key("two", (0, 1), 0)
    issue = {key: Call(False, key, ("allreduce", 4)) for key in (one, two)}
    wait = {key: Call(False, key, None) for key in (one, two)}
    waiting = [[issue[a], wait[a], issue[b], wait[b]] for a, b in ((one, two), (two, one))]
    assert "wait for one another" in faults(waiting, one_at_a_time=False)[0]
    later = [[issue[a], issue[b], wait[a], wait[b]] for a, b in ((one, two), (two, one))]
    assert faults(later, one_at_a_time=False) == []
    assert "wait for one another" in faults(later, one_at_a_time=True)[0]


def test_hops_that_are_issued_on_completion_have_no_order() -> None:
    """As CPU ranks do it, where no device has to keep an order: a GPU could hang."""
    spec = small(FOUR, 2, sharding="zeropp", wire=QUANTISED)
    ways = [Way(streams=False, seed=seed) for seed in (1, 2, 3)]
    ranks = run_ranks(4, issued, spec, ways)
    assert any(faults(list(calls), one_at_a_time=True) for calls in zip(*ranks, strict=True))
