"""Who must hold the same, and who is outvoted."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.runtime.integrity.copies import KINDS, Odd, keys, odd_ones


def layout(tensor: int = 1, pipeline: int = 1, degrees: tuple[int, int, int] = (1, 1, 1)) -> Layout:
    """16 ranks on two nodes."""
    return Layout(2, 8, 2, tensor, pipeline, 1, *degrees, secondary=degrees[0])


@pytest.mark.parametrize(
    "of",
    [
        layout(),
        layout(degrees=(2, 8, 16)),
        layout(degrees=(2, 4, 8)),
        layout(tensor=2, pipeline=2),
        layout(tensor=2, pipeline=4, degrees=(1, 2, 2)),
    ],
)
def test_groups_are_those_of_the_layout(of: Layout) -> None:
    """What a rank's communicators say, one rank at a time."""
    found = keys(of)
    for rank in range(16):
        tensor, data, pipeline = of.coordinates(rank)
        groups, position = of.groups(rank), of.position(data)
        ranks = [(other, of.coordinates(other)) for other in range(16)]
        here = {r for r, (t, _, p) in ranks if (t, p) == (tensor, pipeline)}
        same = {r for r in here if of.position(of.coordinates(r).data).weights == position.weights}
        expected = {
            "weights": same,
            "shard": set(groups.replicas),
            "tensor": set(groups.tensor),
            "tied": set(groups.embedding),
            "world": set(range(16)),
        }
        for name, members in expected.items():
            assert set(np.flatnonzero(found[name] == found[name][rank])) == members, (name, rank)


def test_experts_have_copies_of_their_own() -> None:
    """Four ranks share the experts of a layer, and shards of experts lie over every fourth rank."""
    of = Layout(2, 8, 2, 1, 1, 1, 2, 8, 16, secondary=2, expert=4)
    found, view = keys(of), of.of_experts()
    for rank in range(16):
        groups = view.groups(rank)
        same = {r for r in range(16) if r % 4 == rank % 4}
        assert set(np.flatnonzero(found["experts' weights"] == found["experts' weights"][rank])) == same
        assert set(np.flatnonzero(found["experts' shard"] == found["experts' shard"][rank])) == set(
            groups.replicas
        )


def table(**changed: dict[int, int]) -> np.ndarray:
    values = np.zeros((16, len(KINDS)), dtype=np.int64)
    for kind, ranks in changed.items():
        for rank, value in ranks.items():
            values[rank, list(KINDS).index(kind.replace("_", " "))] = value
    return values


def test_equal_copies() -> None:
    assert odd_ones(table(), keys(layout())) == []


def test_a_majority_names_the_odd_one() -> None:
    groups = keys(layout())
    assert odd_ones(table(master_weights={5: 7}), groups) == [Odd("master weights", (5,), 16)]
    # Also if the odd one is the first, and if several are odd.
    assert odd_ones(table(weights={0: 7, 3: 8}), groups) == [Odd("weights", (0, 3), 16)]


def test_two_copies_have_no_majority() -> None:
    groups = keys(layout(degrees=(2, 4, 8)))
    (odd,) = odd_ones(table(first_moments={9: 1}), groups)
    assert odd == Odd("first moments", (1, 9), 2) and not odd.outvoted


def test_what_is_held_once_has_no_copy_to_differ_from() -> None:
    every = dict(enumerate(range(16)))
    assert odd_ones(table(master_weights=every), keys(layout(degrees=(2, 8, 16)))) == []
