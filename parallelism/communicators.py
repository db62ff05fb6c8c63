"""Which communicators a rank has: the runtime makes them, and the planner counts them.

A communicator takes memory on the device, and kernels of several compete for it, so there are as few as keep
what overlaps apart. Uses of one set of ranks share a communicator if they are never in flight together:

- What the computing stream waits for: messages of tensor ranks and between stages, sums, gathers of weights.
- What runs beside it: hops of gradients, and updates of weights, which start once all gradients have arrived.
- Tokens on their way to experts and back, for which the computing stream waits while weights of the next
  layer are gathered.

Weights for the backward travel while gradients do. With one communicator a gather would wait for the hop
before it, so these two kinds only share one if the run says ``communicators: shared``. Every rank issues
collectives in the order of its program, which is the same on all ranks of a communicator.

Gradients of experts take other hops than those of the same layer's other parameters. How far each has got
depends on timing, so the two never share a communicator.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from frontrunner.parallelism.layout import Layout

Ranks = tuple[int, ...]


class Kind(Enum):
    """Uses of different kinds do not share a communicator."""

    COMPUTING = "what the computing stream waits for"
    TOKENS = "tokens of experts"
    BESIDE = "what runs beside the computing stream"
    BESIDE_OF_EXPERTS = "the same, of experts"


#: Before the names of what the shards of experts communicate for, if their ranks are others.
OF_EXPERTS = "experts."
#: In place of an index: the communicator of all ranks, and none.
WORLD, ITSELF = -1, -2


class Use(NamedTuple):
    """What the field ``name`` of the runtime's groups needs; ``ranks`` is this one alone if it needs none.

    Names of the shards of experts begin with :data:`OF_EXPERTS`.
    """

    name: str
    ranks: Ranks
    kind: Kind = Kind.COMPUTING


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
    known: dict[tuple[Ranks, Kind], int] = {((rank,), kind): ITSELF for kind in Kind}
    if layout.world_size > 1:
        known[everyone, Kind.COMPUTING] = WORLD
    of = {"world": [known[everyone, Kind.COMPUTING]]}
    made: list[Ranks | None] = []
    for degree, (name, ranks, kind) in _uses(layout, rank, data):
        shared = layout.shares_communicators and kind is Kind.BESIDE
        key = (ranks, Kind.COMPUTING if shared else kind)
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
    yield layout.tensor, Use("tensor", own.tensor)
    yield layout.pipeline, Use("pipeline", own.pipeline)
    yield layout.pipeline if layout.ties_embeddings else 1, Use("embedding", own.embedding)
    yield layout.key_value, Use("key_value", own.key_value)
    yield layout.data if data else 1, Use("data", own.data)
    # Tokens to experts and back: two hops, or one and nothing.
    for hop in (*layout.expert_hops(rank), alone)[:2]:
        yield layout.expert, Use("expert_hops", hop, Kind.TOKENS)
    yield from _of_shards(layout, rank, "")
    if layout.expert > 1:
        yield from _of_shards(layout.of_experts(), rank, OF_EXPERTS)


def _of_shards(layout: Layout, rank: int, prefix: str) -> Iterator[tuple[int, Use]]:
    """What the shards of parameters communicate for, by the degrees of ``layout``."""
    own, alone = layout.groups(rank), (rank,)
    beside = Kind.BESIDE_OF_EXPERTS if prefix else Kind.BESIDE
    yield layout.weights, Use(f"{prefix}weights", own.weights)
    second = layout.secondary if layout.secondary < layout.weights else 1
    yield second, Use(f"{prefix}secondary", own.secondary)
    reduced = {"block_hops": own.gradients, "network_hops": own.network_hop, "replica_hops": own.replicas}
    for name, ranks in reduced.items():
        # Always two: where nodes cut blocks unevenly, one block has one hop and its neighbour two.
        for hop in (*layout.hops(ranks, rank), alone)[:2]:
            yield len(ranks), Use(f"{prefix}{name}", hop, beside)
    for name, ranks in (("node_hop", own.node_hop), ("network_hop", own.network_hop)):
        yield len(ranks), Use(f"{prefix}{name}", ranks, beside)
    yield len(own.replicas), Use(f"{prefix}replicas", own.replicas, beside)
