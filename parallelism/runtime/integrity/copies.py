"""Which ranks must hold the same state, and which of them differ. No communication."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frontrunner.parallelism.layout import Layout, Position

Column = NDArray[np.int64]

#: What is compared, in the order of the columns of :func:`odd_ones`, and over which ranks.
KINDS = {
    "weights in use": "weights",
    "experts' weights in use": "experts' weights",
    "weights": "weights",
    "experts' weights": "experts' weights",
    "master weights": "shard",
    "first moments": "shard",
    "second moments": "shard",
    "experts' master weights": "experts' shard",
    "experts' first moments": "experts' shard",
    "experts' second moments": "experts' shard",
    "parameters that tensor ranks share": "tensor",
    "sums over tensor ranks": "tensor",
    "the tied embedding": "tied",
    "sums over tied stages": "tied",
    "the gradient norm": "world",
}


class Odd(NamedTuple):
    """Copies of ``kind`` differ. ``ranks`` are those that differ from most of ``of`` copies, or all of them
    if there is no majority."""

    kind: str
    ranks: tuple[int, ...]
    of: int

    @property
    def outvoted(self) -> bool:
        return len(self.ranks) < self.of


def keys(layout: Layout) -> dict[str, Column]:
    """Each rank's group of equal state, by what the group shares: int64 [world_size] with equal numbers."""
    ranks = np.arange(layout.world_size)
    # The layout's arithmetic works on arrays.
    tensor, data, pipeline = layout.coordinates(ranks)  # type: ignore[arg-type]
    model: Column = np.asarray(pipeline) * layout.tensor + tensor
    view = layout.of_experts()
    held = model * view.holders_apart + np.asarray(data) % view.holders_apart
    own: Column = np.asarray(data) + layout.data * np.asarray(pipeline)
    ends = np.asarray(pipeline) % max(1, layout.pipeline - 1) == 0
    weights, shard = _shards(layout, model, layout.position(data))
    of_experts = _shards(view, held, view.position(data))
    return {
        "weights": weights,
        "shard": shard,
        "experts' weights": of_experts[0],
        "experts' shard": of_experts[1],
        "tensor": own,
        "tied": np.where(ends, np.asarray(data) * layout.tensor + tensor, layout.world_size + ranks),
        "world": np.zeros(layout.world_size, dtype=np.int64),
    }


def _shards(layout: Layout, held: Column, position: Position) -> tuple[Column, Column]:
    """Numbers of the weight shard and of the optimizer shard of what each rank holds."""
    weights = held * layout.weights + position.weights
    shard = (position.weights * layout.gradients + position.gradients) * layout.optimizer + position.optimizer
    return weights, held * layout.optimizer**3 + shard


def odd_ones(table: Column, groups: dict[str, Column]) -> list[Odd]:
    """The ranks whose checksums differ in ``table`` [world_size, len(KINDS)], by kind."""
    found = []
    for column, (kind, over) in zip(table.T, KINDS.items(), strict=True):
        _, first, group = np.unique(groups[over], return_index=True, return_inverse=True)
        for number in np.unique(group[column != column[first[group]]]):
            members = np.flatnonzero(group == number)
            found.append(_vote(kind, members.tolist(), column[members].tolist()))
    return found


def _vote(kind: str, members: list[int], values: list[int]) -> Odd:
    value, votes = Counter(values).most_common(1)[0]
    if 2 * votes <= len(members):
        return Odd(kind, tuple(members), len(members))
    odd = tuple(rank for rank, own in zip(members, values, strict=True) if own != value)
    return Odd(kind, odd, len(members))
