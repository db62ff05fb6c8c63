"""Bytes that a rank sends so that tokens get to their experts and back, by level, with uniform routing.

``flat``: one hop over all ranks of the expert group. ``hierarchical``: a hop between counterparts on the
group's nodes, with one copy of a token for each node that has an expert of its, then one inside the node.
What stays on a rank is not sent. Each tensor rank sends all tokens. Of int8 messages a hop that leaves the
node is encoded, with all its messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import PRECISION_BYTES
from frontrunner.parallelism.planner.routing import expected_copies, row_bytes, token_bytes
from frontrunner.parallelism.planner.traffic import Bytes, Node


class Dispatch(NamedTuple):
    """Bytes by level that a rank sends in one micro-batch; ``backward`` has what recomputation repeats."""

    forward: Bytes
    backward: Bytes

    def step(self, grad_accum_steps: int) -> Bytes:
        """Bytes of a step."""
        return {
            level: grad_accum_steps * (self.forward[level] + self.backward[level]) for level in self.forward
        }


class _Sent(NamedTuple):
    """Copies of each token of the source, sent to one rank."""

    to: int
    copies: float
    leaves_node: bool
    """The hop, not this message."""


def dispatch(spec: RunSpec, layout: Layout, layers: int, busiest: bool = False) -> Dispatch:
    """What a rank sends for ``layers`` layers with experts, as in :func:`traffic.traffic`."""
    experts = spec.model.experts
    assert experts, "only layers with experts send tokens"
    tokens = layers * spec.layout.micro_batch_size * spec.training.seq_len
    width, int8 = PRECISION_BYTES[spec.training.precision], spec.layout.dispatch_wire == "int8"
    node = Node(layout, busiest)
    forward: list[tuple[int, int, float]] = []
    backward: list[tuple[int, int, float]] = []
    for rank in node.ranks:
        for sent in _sent(spec, layout, rank):
            values = token_bytes(spec.model.hidden_size, width, int8 and sent.leaves_node)
            row = row_bytes(experts, values)
            again = row.forward if spec.layout.recompute == "full" else 0.0
            forward.append((rank, sent.to, tokens * sent.copies * row.forward))
            backward.append((rank, sent.to, tokens * sent.copies * (row.backward + again)))
    return Dispatch(node.messages(forward), node.messages(backward))


def _sent(spec: RunSpec, layout: Layout, rank: int) -> Iterator[_Sent]:
    """What a rank sends on average, on all hops, of a token of each source."""
    experts = spec.model.experts
    assert experts
    group = layout.groups(rank).expert
    hops = layout.hops(group, rank)
    each = expected_copies(experts, len(group)) / len(group)
    if spec.layout.dispatch == "flat" or len(hops) == 1:
        leaves = len({other // layout.devices_per_node for other in group}) > 1
        yield from (_Sent(other, each, leaves) for other in group if other != rank)
        return
    inside, across = hops
    nodes = len(across)
    of_node = expected_copies(experts, nodes) / nodes
    yield from (_Sent(other, of_node, True) for other in across if other != rank)
    # Here the tokens of all counterparts pass.
    yield from (_Sent(other, nodes * each, False) for other in inside if other != rank)
