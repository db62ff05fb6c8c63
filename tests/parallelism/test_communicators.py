"""All ranks make their communicators together, and no two serve what one can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.sharding import SHARDING_PRESETS
from frontrunner.parallelism.communicators import ITSELF, communicators
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.communicator_count import communicators as planned_count
from support.specs import run_spec, sharing

EIGHT: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
SIXTEEN: dict[str, Any] = {"nodes": 2, "packages": 4, "devices": 2}
LAYOUTS = {
    "one rank": Layout.from_spec(run_spec()),
    **{preset: Layout.from_spec(run_spec(**EIGHT, sharding=preset)) for preset in SHARDING_PRESETS},
    **{
        f"{preset}, tensor 2 x pipeline 4": Layout.from_spec(
            run_spec(
                **SIXTEEN,
                sharding=preset,
                layout={"tensor": 2, "pipeline": 4},
                training={"global_batch_size": 8},
            )
        )
        for preset in ("ddp", "zero1", "zero2", "zero3", "hsdp", "zeropp")
    },
    "replicas": Layout.from_spec(run_spec(**SIXTEEN, sharding=(2, 4, 8))),
    "nodes cut blocks unevenly": Layout(4, 3, 1, 1, 1, 1, 2, 6, 12, 2),
    "nodes cut some blocks": Layout(4, 6, 1, 1, 1, 1, 1, 4, 12, 1),
    "stages on parts of nodes": Layout(3, 4, 1, 1, 3, 1, 1, 2, 4, 1, ties_embeddings=False),
    **{
        f"{preset}, expert {expert}": Layout.from_spec(
            run_spec(model="sparse", **SIXTEEN, sharding=preset, layout={"expert": expert})
        )
        for preset in SHARDING_PRESETS
        for expert in (2, 8)
    },
    "many tensor ranks": Layout(2, 8, 2, 8, 1, 1, 1, 2, 2, 1, key_value=4),
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_ranks_make_each_communicator_at_the_same_time(name: str, shared: bool) -> None:
    """NCCL's split is a call of all ranks: their lists are as long, and each entry divides the ranks."""
    layout = replace(LAYOUTS[name], shares_communicators=shared)
    ranks = range(layout.world_size)
    all_made = [communicators(layout, rank).made for rank in ranks]
    for entry in zip(*all_made, strict=True):
        for rank, members in zip(ranks, entry, strict=True):
            if members is not None:
                assert rank in members and len(members) > 1
                assert [entry[other] for other in members] == [members] * len(members)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_each_use_has_its_ranks(name: str, shared: bool) -> None:
    layout = replace(LAYOUTS[name], shares_communicators=shared)
    for rank in range(layout.world_size):
        found = communicators(layout, rank, data=True)
        known = {ITSELF: (rank,), -1: tuple(range(layout.world_size))} | dict(enumerate(found.made))
        groups = layout.groups(rank)
        for use in (
            "tensor",
            "pipeline",
            "key_value",
            "data",
            "weights",
            "node_hop",
            "network_hop",
            "replicas",
        ):
            (index,) = found.of[use]
            assert known[index] == getattr(groups, use)
        for use, ranks in (("block_hops", groups.gradients), ("replica_hops", groups.replicas)):
            indices = found.of[use]
            hops = [known[indices[0]], *(known[index] for index in indices[1:] if index != ITSELF)]
            assert hops == list(layout.hops(ranks, rank))


@pytest.mark.parametrize("name", LAYOUTS)
def test_there_are_as_few_as_overlap_allows(name: str) -> None:
    """One of a set of ranks if shared; otherwise at most one more, for what runs beside computing."""
    layout = LAYOUTS[name]
    for rank in range(layout.world_size):
        made = [ranks for ranks in communicators(layout, rank).made if ranks]
        if layout.expert > 1:  # its messages and gradients have more of their own
            assert all(made.count(ranks) <= 4 for ranks in made)
            continue
        shared = [
            ranks for ranks in communicators(replace(layout, shares_communicators=True), rank).made if ranks
        ]
        everyone = tuple(range(layout.world_size))
        assert len(set(shared)) == len(shared) and everyone not in shared
        assert {*shared, everyone} == {*made, everyone}
        assert all(made.count(ranks) <= 2 for ranks in made) and made.count(everyone) <= 1


@pytest.mark.parametrize(
    ("preset", "separate", "shared"),
    [
        ("ddp", 4, 3),  # all ranks; their hops inside the node and between nodes, and a gather
        ("zero1", 4, 3),
        ("zero2", 4, 3),
        ("zero3", 3, 3),  # all ranks, also for weights; hops
        ("zeropp", 4, 3),  # and weights inside the node, for the backward
        ("hsdp", 4, 3),  # all ranks; weights and gradients of the node; between nodes
        ("three_level", 5, 5),  # all ranks; the package, the node, between nodes, packages of the node
    ],
)
def test_communicators_of_presets(preset: str, separate: int, shared: int) -> None:
    layout = LAYOUTS[preset]
    assert communicators(layout, 0).total == separate
    assert communicators(replace(layout, shares_communicators=True), 0).total == shared


CUTS = [
    (packages, devices, nodes, tensor, pipeline, preset)
    for packages, devices in ((1, 1), (1, 4), (4, 2), (3, 1))
    for nodes in (1, 2, 4)
    for tensor in (1, 2, 4)
    for pipeline in (1, 2, 4)
    for preset in SHARDING_PRESETS
]


@pytest.mark.parametrize("shared", [False, True])
def test_the_planner_counts_what_ranks_make(shared: bool) -> None:
    counts = []
    for packages, devices, nodes, tensor, pipeline, preset in CUTS:
        keys: dict[str, Any] = {"model": "llama", "packages": packages, "devices": devices, "nodes": nodes}
        world = packages * devices * nodes
        training = {"global_batch_size": 16 * max(1, world // (tensor * pipeline))}
        cut = {"tensor": tensor, "pipeline": pipeline}
        spec = run_spec(**keys, sharding=preset, layout=cut, training=training)
        if shared:
            spec = sharing(spec)
        try:
            layout = Layout.from_spec(spec)
        except SpecError:
            continue  # a preset that these ranks do not allow
        made = [communicators(layout, rank).total for rank in range(world)]
        planned = planned_count(Workload.of(spec), Candidates.of(spec, layout))
        assert planned[0] == max(made), (packages, devices, nodes, tensor, pipeline, preset)
        counts.append(max(made))
    assert len(counts) > 150 and min(counts) == 0 and max(counts) > 5


def test_the_planner_counts_those_of_experts() -> None:
    counts = []
    for packages, devices, nodes, tensor, pipeline, preset in CUTS:
        for expert in (2, 4, 8):
            keys: dict[str, Any] = {"packages": packages, "devices": devices, "nodes": nodes}
            data = packages * devices * nodes // (tensor * pipeline)
            if data % expert or not data:
                continue
            cut = {"tensor": tensor, "pipeline": pipeline, "expert": expert}
            training = {"global_batch_size": 16 * data}
            spec = run_spec(model="sparse", **keys, sharding=preset, layout=cut, training=training)
            try:
                layout = Layout.from_spec(spec)
            except SpecError:
                continue
            made = communicators(layout, 0).total  # ranks whose blocks nodes cut have more
            planned = planned_count(Workload.of(spec), Candidates.of(spec, layout))
            assert planned[0] == made, (packages, devices, nodes, tensor, pipeline, preset, expert)
            counts.append(made)
    assert len(counts) > 100
