"""The hops on which tokens of many layouts get to their experts: see :mod:`dispatch` for one layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from frontrunner.parallelism.communicators import Kind
from frontrunner.parallelism.planner import rank_sets
from frontrunner.parallelism.planner.candidates import Array, Candidates, Index, Mask, Workload
from frontrunner.parallelism.planner.collectives import Fabric
from frontrunner.parallelism.planner.rank_sets import RankSet
from frontrunner.parallelism.planner.routing import copies, row_bytes, token_bytes


class Hop(NamedTuple):
    """An all-to-all over ``size`` ranks [n] that are ``stride`` devices apart; 1 rank: there is none.

    ``copies`` of each token go to all of them together, this rank included. ``values`` are bytes of one.
    """

    size: Array
    stride: Array
    copies: Array
    values: Array


class Dispatch(NamedTuple):
    """Seconds [n] of one layer and micro-batch, without recomputation."""

    forward: Array
    backward: Array


def expert_sets(workload: Workload, c: Candidates) -> tuple[RankSet, RankSet]:
    """The ranks of the hop that leaves the node, or of the only hop; then those inside the node."""
    inside, across = rank_sets.hops(
        RankSet(c.expert, c.tensor, Kind.TOKENS), workload.machine.devices_per_node
    )
    two = (across.size > 1) & (c.flat_dispatch == 0)
    outer = RankSet(np.where(two, across.size, c.expert), np.where(two, across.stride, c.tensor), Kind.TOKENS)
    return outer, RankSet(np.where(two, inside.size, 1), c.tensor, Kind.TOKENS)


def has_two_hops(workload: Workload, tensor: Index, expert: Index) -> Mask:
    """Whether [n] tokens can go to experts on a hop between nodes and one inside the node."""
    ranks = RankSet(expert.astype(float), tensor.astype(float))
    _, across = rank_sets.hops(ranks, workload.machine.devices_per_node)
    found: Mask = across.size > 1
    return found


def hops(workload: Workload, c: Candidates) -> tuple[Hop, Hop]:
    """The hop that leaves the node, or the only one, and the one inside the node."""
    experts, model = workload.model.experts, workload.model
    assert experts
    outer, inner = expert_sets(workload, c)
    exact, coded = (token_bytes(model.hidden_size, workload.compute_bytes, int8) for int8 in (False, True))
    leaves = outer.size * outer.stride > workload.machine.devices_per_node
    return (
        Hop(
            outer.size,
            outer.stride,
            copies(experts, outer.size),
            np.where(leaves & (c.int8_dispatch > 0), coded, exact),
        ),
        Hop(inner.size, inner.stride, copies(experts, c.expert), np.full(len(c), float(exact))),
    )


def imbalance(workload: Workload, c: Candidates) -> Array:
    """How many times the mean of tokens the busiest rank gets; a rank with all experts gets its own."""
    return np.where(c.expert > 1, workload.profile.expert_imbalance, 1.0)


def rows(workload: Workload, c: Candidates) -> Array:
    """Tokens that the experts of the busiest rank compute in a micro-batch, each once for each expert."""
    experts = workload.model.experts
    assert experts
    return workload.tokens(c) * experts.experts_per_token * imbalance(workload, c)


def buffers(workload: Workload, c: Candidates) -> Array:
    """Bytes of the messages of one layer: what a hop sends and receives, on all hops."""
    found = np.zeros(len(c))
    for hop, row in _rows(workload, c):
        found += np.where(hop.size > 1, 2 * hop.copies * row, 0.0)
    return workload.tokens(c) * imbalance(workload, c) * found


def seconds(workload: Workload, c: Candidates, fabric: Fabric) -> Dispatch:
    """A way there and a way back on each hop, in the forward and in the backward."""
    experts = workload.model.experts
    assert experts
    forward, backward = np.zeros(len(c)), np.zeros(len(c))
    sent = workload.tokens(c) * imbalance(workload, c)
    for hop in hops(workload, c):
        row = row_bytes(experts, 0.0)
        each = sent * hop.copies / hop.size

        def there_and_back(more: float, hop: Hop = hop, each: Array = each) -> Array:
            ways = (hop.values + more, hop.values)
            return sum(
                (fabric.all_to_all(hop.size, hop.stride, each * way).longest for way in ways),
                np.zeros(len(c)),
            )

        forward += there_and_back(row.forward)
        backward += there_and_back(row.backward)
    return Dispatch(forward, backward)


def _rows(workload: Workload, c: Candidates) -> Iterator[tuple[Hop, Array]]:
    """Each hop, and bytes of a row on it with ids and weights."""
    experts = workload.model.experts
    assert experts
    more = row_bytes(experts, 0.0).forward
    yield from ((hop, hop.values + more) for hop in hops(workload, c))
