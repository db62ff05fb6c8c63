from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.layout import Layout, Position
from support.specs import run_spec


def layout(**kwargs: object) -> Layout:
    return Layout.from_spec(run_spec(**kwargs))  # type: ignore[arg-type]


def test_three_level_on_frontier() -> None:
    found = layout(nodes=2, packages=4, devices=2, sharding="three_level")
    assert (found.weights, found.gradients, found.optimizer, found.data) == (2, 8, 16, 16)
    groups = found.groups(5)
    assert groups.weights == (4, 5)
    assert groups.gradients == tuple(range(8))
    assert groups.node_hop == (1, 3, 5, 7)
    assert groups.network_hop == (5, 13)
    assert groups.replicas == (5,)
    assert found.position(5) == Position(weights=1, gradients=2, optimizer=0, replica=0)


def test_tensor_that_fills_a_package_leaves_one_rank_on_it() -> None:
    found = layout(nodes=2, packages=4, devices=2, sharding="three_level", layout={"tensor": 2})
    assert (found.weights, found.gradients, found.optimizer) == (1, 4, 8)


def test_tensor_across_nodes_leaves_one_rank_on_each_level() -> None:
    found = layout(nodes=4, packages=4, devices=2, sharding="three_level", layout={"tensor": 16})
    assert (found.weights, found.gradients, found.optimizer) == (1, 1, 2)


def test_stages_fill_whole_nodes() -> None:
    found = layout(nodes=2, packages=4, devices=2, sharding=(2, 4, 8), layout={"pipeline": 2})
    assert found.groups(3).data == tuple(range(8))
    assert found.groups(3).pipeline == (3, 11)
    assert found.groups(3).embedding == (3, 11)


def test_middle_stage_has_no_tied_partner() -> None:
    found = layout(packages=4, devices=1, layout={"pipeline": 4})
    assert [found.groups(rank).embedding for rank in range(4)] == [(0, 3), (1,), (2,), (0, 3)]


def test_levels_between_ranks() -> None:
    found = layout(nodes=2, packages=4, devices=2)
    assert [found.level_between(0, other) for other in (1, 2, 7, 8)] == ["package", "node", "node", "network"]


def test_uneven_level_is_an_error_with_its_numbers() -> None:
    # Stages of 12 data-parallel ranks on nodes of 8: a node holds 8 or 4 of a stage's ranks.
    with pytest.raises(SpecError) as error:
        layout(nodes=3, packages=4, devices=2, sharding=(2, "node", "all"), layout={"pipeline": 2})
    (violation,) = error.value.violations
    assert violation.path == "layout.sharding.gradients"
    assert "node of 8 devices holds 4 or 8" in violation.constraint


@pytest.mark.parametrize(
    ("sharding", "paths"),
    [
        ((4, 2, 8), ["layout.sharding.weights"]),
        ((1, 3, 8), ["layout.sharding.gradients"]),
        ((3, 4, 6), ["layout.sharding.weights", "layout.sharding.gradients", "layout.sharding.optimizer"]),
        ((1, 1, 16), ["layout.sharding.optimizer"]),
    ],
)
def test_degrees_must_nest(sharding: tuple[int, int, int], paths: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        layout(packages=4, devices=2, sharding=sharding)
    assert [violation.path for violation in error.value.violations] == paths


def test_world_that_the_layout_does_not_divide() -> None:
    with pytest.raises(SpecError, match="tensor 3 x pipeline 1 = 3 must divide the 8 devices"):
        layout(packages=4, devices=2, layout={"tensor": 3})


DIVISORS = {n: [d for d in range(1, n + 1) if n % d == 0] for n in (1, 2, 3, 4, 6, 8, 12, 16, 24)}


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    data = draw(st.sampled_from([1, 2, 4, 6, 8, 12, 24]))
    optimizer = draw(st.sampled_from(DIVISORS[data]))
    gradients = draw(st.sampled_from(DIVISORS[optimizer]))
    weights = draw(st.sampled_from(DIVISORS[gradients]))
    tensor, pipeline = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (2, 3)]))
    return Layout(data * tensor * pipeline, 1, 1, tensor, pipeline, 1, weights, gradients, optimizer, weights)


@given(layouts())
def test_groups_partition_the_world_and_agree(found: Layout) -> None:
    every = [found.groups(rank) for rank in range(found.world_size)]
    for rank, groups in enumerate(every):
        assert found.rank(*found.coordinates(rank)) == rank
        for name, members in groups._asdict().items():
            assert rank in members
            assert list(members) == sorted(members)
            assert all(getattr(every[member], name) == members for member in members)


@given(layouts())
def test_shards_cover_a_unit_once_per_replica(found: Layout) -> None:
    positions = Counter(found.position(data) for data in range(found.data))
    ranges = (
        found.weights,
        found.gradients // found.weights,
        found.optimizer // found.gradients,
        found.data // found.optimizer,
    )
    assert positions == Counter(Position(*p) for p in product(*map(range, ranges)))


@given(
    st.integers(1, 6),
    st.sampled_from([(1, 8), (2, 4), (4, 2)]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 3, 4]),
)
def test_a_level_is_the_placement(nodes: int, node: tuple[int, int], tensor: int, pipeline: int) -> None:
    devices, packages = node
    if nodes * 8 % (tensor * pipeline):
        return
    spec = run_spec(
        nodes=nodes,
        packages=packages,
        devices=devices,
        sharding=(1, "node", "all"),
        layout={"tensor": tensor, "pipeline": pipeline},
    )
    data = nodes * 8 // (tensor * pipeline)
    grid = Layout(nodes, 8, devices, tensor, pipeline, 1, 1, 1, 1, 1)
    sizes = set()
    for t, p in product(range(tensor), range(pipeline)):
        sizes |= set(Counter(grid.rank(t, d, p) // 8 for d in range(data)).values())
    if len(sizes) == 1:
        assert Layout.from_spec(spec).gradients == sizes.pop()
    else:
        with pytest.raises(SpecError, match="uneven"):
            Layout.from_spec(spec)
