"""Which communicators a rank has: the runtime makes them, and the planner counts them.

A communicator takes memory on the device, and kernels of several compete for it, so there are as few as keep
what overlaps apart. Uses of one set of ranks share a communicator if they are never in flight together:

- What the computing stream waits for: messages of tensor ranks and between stages, sums, gathers of weights.
- What runs beside it: hops of gradients, and updates of weights, which start once all gradients have arrived.

Weights for the backward travel while gradients do. With one communicator a gather would wait for the hop
before it, so these two kinds only share one if the run says ``communicators: shared``. Every rank issues
collectives in the order of its program, which is the same on all ranks of a communicator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from frontrunner.parallelism.layout import Layout

Ranks = tuple[int, ...]


#: In place of an index: the communicator of all ranks, and none.
WORLD, ITSELF = -1, -2


class Use(NamedTuple):
    """What the field ``name`` of the runtime's groups needs; ``ranks`` is this one alone if it needs none.

    ``beside``: beside the computing stream.
    """

    name: str
    ranks: Ranks
    beside: bool


class Communicators(NamedTuple):
    """``made`` in order, as many entries on all ranks; None where this rank has no part.

    ``of`` has the communicators of each name, an index into ``made`` for each hop.
    """

    made: list[Ranks | None]
    of: dict[str, list[int]]

    @property
    def total(self) -> int:
        """Communicators of more than one rank, that of all ranks included."""
        return sum(ranks is not None for ranks in self.made) + (self.of["world"] == [WORLD])


def communicators(layout: Layout, rank: int, data: bool = False) -> Communicators:
    """Those of one rank. ``data``: the engine reduces over all data-parallel ranks itself; ours does not."""
    everyone = tuple(range(layout.world_size))
    known: dict[tuple[Ranks, bool], int] = {((rank,), beside): ITSELF for beside in (False, True)}
    if layout.world_size > 1:
        known[everyone, False] = WORLD
    of = {"world": [known[everyone, False]]}
    made: list[Ranks | None] = []
    for degree, (name, ranks, beside) in _uses(layout, rank, data):
        key = (ranks, beside and not layout.shares_communicators)
        if degree > 1:  # or no rank needs one
            made.append(None if key in known else ranks)
            known.setdefault(key, len(made) - 1)
        of.setdefault(name, []).append(known[key] if degree > 1 else ITSELF)
    return Communicators(made, of)


def _uses(layout: Layout, rank: int, data: bool) -> Iterator[tuple[int, Use]]:
    """What rank ``rank`` communicates for, each with the number of ranks without regard to nodes.

    The same names and numbers in the same order on all ranks.
    """
    own, alone = layout.groups(rank), (rank,)
    yield layout.tensor, Use("tensor", own.tensor, False)
    yield layout.pipeline, Use("pipeline", own.pipeline, False)
    yield layout.pipeline if layout.ties_embeddings else 1, Use("embedding", own.embedding, False)
    yield layout.key_value, Use("key_value", own.key_value, False)
    yield layout.data if data else 1, Use("data", own.data, False)
    yield layout.weights, Use("weights", own.weights, False)
    yield layout.secondary if layout.secondary < layout.weights else 1, Use("secondary", own.secondary, False)
    reduced = {"block_hops": own.gradients, "network_hops": own.network_hop, "replica_hops": own.replicas}
    for name, ranks in reduced.items():
        # Always two: where nodes cut blocks unevenly, one block has one hop and its neighbour two.
        for hop in (*layout.hops(ranks, rank), alone)[:2]:
            yield len(ranks), Use(name, hop, True)
    for name, ranks in (("node_hop", own.node_hop), ("network_hop", own.network_hop)):
        yield len(ranks), Use(name, ranks, True)
    yield len(own.replicas), Use("replicas", own.replicas, True)
