"""Bytes that a rank of the native engine sends in a step, by level of the machine.

Sources: Xu et al. 2025 (arXiv 2501.04266) for three levels, ZeRO++ (arXiv 2306.10209) for secondary weights
and two-hop gradients. Padding and tensor- and pipeline-parallel messages are excluded. Tokens on their way to
experts are in :mod:`dispatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import Wire
from frontrunner.parallelism.layout import LEVELS, Layout

_BITS: dict[Wire, int] = {"float32": 32, "bfloat16": 16, "float16": 16, "int8": 8, "int4": 4}
Bytes = dict[str, float]


class Units(NamedTuple):
    """Parameters at one rank's tensor and pipeline coordinates, by what is gathered together.

    ``embedding`` and ``output`` are zero on stages without them. With tied embeddings, ``output`` is what the
    output layer gathers again. ``experts`` are those of all layers and ``first_experts`` the first layer's:
    the experts that this rank and the holders of the same ones have, in shard units of their own.
    """

    layers: float
    first_layer: float
    embedding: float
    output: float
    tied: bool
    experts: float = 0
    first_experts: float = 0

    @property
    def numel(self) -> float:
        return self.layers + self.embedding + (0 if self.tied else self.output) + self.experts


class Traffic(NamedTuple):
    """Bytes that a rank sends, by level.

    Each micro-batch sends ``forward`` and ``backward``, except what the previous one left gathered
    (``kept``). ``reduction`` is sent once after the last backward, ``update`` after the optimizer.
    """

    forward: Bytes
    kept: Bytes
    backward: Bytes
    reduction: Bytes
    update: Bytes

    def before_update(self, grad_accum_steps: int) -> Bytes:
        """What a step sends before the optimizer."""
        return {
            level: grad_accum_steps * (self.forward[level] + self.backward[level])
            - (grad_accum_steps - 1) * self.kept[level]
            + self.reduction[level]
            for level in LEVELS
        }

    def step(self, grad_accum_steps: int) -> Bytes:
        """Everything that a step sends."""
        before = self.before_update(grad_accum_steps)
        return {level: before[level] + self.update[level] for level in LEVELS}


def wire_bytes(wire: Wire, block: int) -> float:
    """Bytes per value on the wire, including its share of a block's float32 scale."""
    bits = _BITS[wire]
    return bits / 8 + (4 / block if bits < 16 else 0)


def traffic(spec: RunSpec, layout: Layout, units: Units, busiest: bool = False) -> Traffic:
    """What a step of ``spec`` sends: the mean over ranks, or the value of a rank in the ``busiest`` package.

    A ring over several nodes leaves each node through one package, whose network link is the busiest. The
    backward only gathers layers: the output layer's weights are still there at its start, and the embedding
    needs none. It ends with the first layer's weights, which the next forward uses. Experts are gathered and
    reduced like layers, over the holders of the same ones.
    """
    found = _sharding(spec, layout, units._replace(experts=0, first_experts=0), busiest)
    if not units.experts:
        return found
    experts = Units(units.experts, units.first_experts, embedding=0, output=0, tied=False)
    own = _sharding(spec, layout.of_experts(), experts, busiest)
    return Traffic(*(_sum(one, other) for one, other in zip(found, own, strict=True)))


def _sharding(spec: RunSpec, layout: Layout, units: Units, busiest: bool) -> Traffic:
    numel = units.numel
    wires = spec.layout.sharding.wires(spec.training.precision)
    weight, gradient, network = (
        wire_bytes(wire, wires.block) for wire in (wires.weights, wires.gradients, wires.network)
    )
    w, g, o, secondary = layout.weights, layout.gradients, layout.optimizer, layout.secondary
    if w == 1:  # weights that are not cut are kept, and updated, as they are used
        weight = wire_bytes(spec.training.precision, wires.block)
    node = Node(layout, busiest)
    return Traffic(
        forward=node.gather("weights", (units.layers + units.embedding + units.output) / w * weight),
        kept=node.gather("weights", units.first_layer / w * weight),
        backward=_sum(
            node.gather("secondary" if secondary < w else "weights", units.layers / secondary * weight),
            node.exchange("gradients", numel * gradient),
        ),
        reduction=_sum(
            node.exchange("network_hop", numel / g * network),
            node.exchange("replicas", numel / o * network),
            node.gather("replicas", numel / layout.holders * _BITS[spec.training.precision] / 8),
        ),
        update=_sum(
            node.gather("network_hop", numel / o * weight), node.gather("node_hop", numel / g * weight)
        ),
    )


class Node:
    """The ranks of one node (all nodes are alike) and what they send."""

    def __init__(self, layout: Layout, busiest: bool) -> None:
        self.layout = layout
        self.busiest = busiest
        self.ranks = range(layout.devices_per_node)
        self.groups = [layout.groups(rank) for rank in self.ranks]

    def gather(self, kind: str, shard: float) -> Bytes:
        """A ring in each group of that kind: a rank passes on every shard except its neighbour's."""
        sent = {level: [0.0] * len(self.ranks) for level in LEVELS}
        for rank, groups in zip(self.ranks, self.groups, strict=True):
            group = getattr(groups, kind)
            if len(group) > 1:
                following = group[(group.index(rank) + 1) % len(group)]
                sent[self.layout.level_between(rank, following)][rank] += shard * (len(group) - 1)
        return self._per_rank(sent)

    def exchange(self, kind: str, total: float) -> Bytes:
        """An all-to-all of ``total`` bytes in chunks over the hops of each group, node first."""
        sent = {level: [0.0] * len(self.ranks) for level in LEVELS}
        for rank, groups in zip(self.ranks, self.groups, strict=True):
            left = total
            for stage in self.layout.hops(getattr(groups, kind), rank):
                for other in stage:
                    if other != rank:
                        sent[self.layout.level_between(rank, other)][rank] += left / len(stage)
                left /= len(stage)
        return self._per_rank(sent)

    def messages(self, sent: Iterable[tuple[int, int, float]]) -> Bytes:
        """Messages of bytes from a rank of the node to another rank."""
        found = {level: [0.0] * len(self.ranks) for level in LEVELS}
        for rank, other, size in sent:
            found[self.layout.level_between(rank, other)][rank] += size
        return self._per_rank(found)

    def _per_rank(self, sent: dict[str, list[float]]) -> Bytes:
        size = self.layout.devices_per_package
        found = {}
        for level, of_ranks in sent.items():
            shares = [sum(of_ranks[first : first + size]) / size for first in range(0, len(of_ranks), size)]
            found[level] = max(shares) if self.busiest else sum(shares) / len(shares)
        return found


def _sum(*parts: Bytes) -> Bytes:
    return {level: sum(part[level] for part in parts) for level in LEVELS}
