"""Ranks, coordinates and groups: the only code that knows the order of ranks.

The tensor axis varies fastest, then data, then pipeline. The ranks of a tensor group are neighbours (inside
a package or node if they fit). The data-parallel ranks of one stage come next and fill whole nodes. Stages
are furthest apart, because messages between stages are the cheapest to send far.

The nested sharding degrees ``weights | gradients | optimizer`` split the index of a data-parallel rank into
a *position*: ``(device, package, node, replica)`` for three-level sharding. Shards nest in that order
(weights outermost), which is not the order of ranks; see :meth:`Layout.position`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.degrees import degrees_of

LEVELS = ("package", "node", "network")


class Coordinates(NamedTuple):
    """The coordinate of a rank on each axis."""

    tensor: int
    data: int
    pipeline: int


class Position(NamedTuple):
    """The position of a data-parallel rank in the nested shards.

    ``weights`` < w says which of the w weight shards the rank holds, ``gradients`` < g/w which part of that
    shard's gradient, ``optimizer`` < o/g which part of that part, ``replica`` < dp/o which copy.
    """

    weights: int
    gradients: int
    optimizer: int
    replica: int


class Groups(NamedTuple):
    """The ranks that one rank works with, including itself, in increasing order.

    ``weights`` gather a shard unit for the forward; ``secondary`` gather it for the backward (the same ranks
    without secondary weights). Each micro-batch's gradients are reduced inside the block ``gradients``.
    ``node_hop`` holds the ranks of that block with the same weight shard, ``network_hop`` the ranks of the
    optimizer's block with the same gradient shard, ``replicas`` the ranks with the same optimizer shard.
    ``embedding`` holds the first and last stage (only the rank itself on other stages). ``key_value`` are the
    tensor ranks whose query heads share one key and value head (only the rank itself if it has whole ones).
    ``expert`` are the ranks over which a layer's experts are cut.
    """

    tensor: tuple[int, ...]
    data: tuple[int, ...]
    pipeline: tuple[int, ...]
    weights: tuple[int, ...]
    secondary: tuple[int, ...]
    gradients: tuple[int, ...]
    node_hop: tuple[int, ...]
    network_hop: tuple[int, ...]
    replicas: tuple[int, ...]
    embedding: tuple[int, ...]
    key_value: tuple[int, ...]
    expert: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a run's ranks are divided into axes, levels and shards; all degrees are numbers of ranks.

    Every ``holders_apart``-th data-parallel rank holds the same parameters, and the sharding degrees count
    these: all ranks for a layout as such, every ``expert``-th for experts (:meth:`of_experts`).
    """

    nodes: int
    devices_per_node: int
    devices_per_package: int
    tensor: int
    pipeline: int
    virtual_stages: int
    weights: int
    gradients: int
    optimizer: int
    secondary: int
    expert: int = 1
    holders_apart: int = 1
    key_value: int = 1  # tensor ranks that share a key and value head
    ties_embeddings: bool = True
    flat_dispatch: bool = False
    shares_communicators: bool = False

    @property
    def world_size(self) -> int:
        return self.nodes * self.devices_per_node

    @property
    def data(self) -> int:
        return self.world_size // (self.tensor * self.pipeline)

    @property
    def holders(self) -> int:
        """Data-parallel ranks that hold the same parameters, or parts of them."""
        return self.data // self.holders_apart

    def of_experts(self) -> Layout:
        """The layout as the parameters of experts are cut.

        A block of n data-parallel ranks has n / expert holders of each expert, or parts of one set of them.
        """
        if self.expert == 1:
            return self
        kinds = ("weights", "gradients", "optimizer", "secondary")
        degrees = {kind: max(1, getattr(self, kind) // self.expert) for kind in kinds}
        return replace(self, holders_apart=self.expert, **degrees)

    @classmethod
    def from_spec(cls, spec: RunSpec) -> Layout:
        """Resolve levels to numbers on the real placement.

        Raises SpecError with every violation: tensor x pipeline does not divide the world, data-parallel
        ranks are uneven on a level, or degrees do not nest.
        """
        machine, layout = spec.machine, spec.layout
        degrees = degrees_of(spec)
        return cls(
            nodes=spec.nodes,
            devices_per_node=machine.devices_per_node,
            devices_per_package=machine.devices_per_package,
            tensor=layout.tensor,
            pipeline=layout.pipeline,
            virtual_stages=layout.virtual_stages,
            expert=layout.expert,
            key_value=max(1, layout.tensor // spec.model.num_kv_heads),
            ties_embeddings=spec.model.tie_embeddings,
            flat_dispatch=spec.layout.dispatch == "flat",
            shares_communicators=layout.sharding.communicators == "shared",
            **degrees,
        )

    def coordinates(self, rank: int) -> Coordinates:
        rest, tensor = divmod(rank, self.tensor)
        pipeline, data = divmod(rest, self.data)
        return Coordinates(tensor, data, pipeline)

    def rank(self, tensor: int, data: int, pipeline: int) -> int:
        return tensor + self.tensor * (data + self.data * pipeline)

    def position(self, data: int) -> Position:
        """The position of data-parallel index ``data`` in the nested shards."""
        rest, weights = divmod(data // self.holders_apart, self.weights)
        rest, gradients = divmod(rest, self.gradients // self.weights)
        replica, optimizer = divmod(rest, self.optimizer // self.gradients)
        return Position(weights, gradients, optimizer, replica)

    def groups(self, rank: int) -> Groups:
        """The groups of one rank. The time grows with their size, not with the number of ranks."""
        tensor, data, pipeline = self.coordinates(rank)

        def block(degree: int, stride: int = 1, apart: int = self.holders_apart) -> tuple[int, ...]:
            """The ranks of the block of ``degree`` holders around ``data`` equal to it modulo ``stride``."""
            degree, stride = degree * apart, stride * apart
            start = data - data % degree
            return tuple(
                self.rank(tensor, d, pipeline) for d in range(start + data % stride, start + degree, stride)
            )

        first = tensor - tensor % self.key_value
        ends = (0, self.pipeline - 1) if pipeline in (0, self.pipeline - 1) else (pipeline,)
        return Groups(
            tensor=tuple(self.rank(t, data, pipeline) for t in range(self.tensor)),
            data=block(self.data, apart=1),
            pipeline=tuple(self.rank(tensor, data, p) for p in range(self.pipeline)),
            weights=block(self.weights),
            secondary=block(self.secondary),
            gradients=block(self.gradients),
            node_hop=block(self.gradients, self.weights),
            network_hop=block(self.optimizer, self.gradients),
            replicas=block(self.holders, self.optimizer),
            embedding=tuple(sorted({self.rank(tensor, data, p) for p in ends})),
            key_value=tuple(self.rank(t, data, pipeline) for t in range(first, first + self.key_value)),
            expert=block(self.expert, apart=1),
        )

    def hops(self, ranks: tuple[int, ...], rank: int) -> tuple[tuple[int, ...], ...]:
        """The groups through which ``rank`` reduces over ``ranks``: its node first, then the network."""
        return hops(ranks, rank, self.devices_per_node)

    def expert_hops(self, rank: int) -> tuple[tuple[int, ...], ...]:
        """The groups through which tokens get to experts: over the network first, then inside the node.

        One group of all ranks that share a layer's experts if the dispatch is flat, or they are on one node,
        or nodes hold one or unequal numbers of them.
        """
        ranks = self.groups(rank).expert
        return (ranks,) if self.flat_dispatch else self.hops(ranks, rank)[::-1]

    def level_between(self, a: int, b: int) -> str:
        """The fastest level that two different ranks share: ``package``, ``node`` or ``network``."""
        if a // self.devices_per_package == b // self.devices_per_package:
            return "package"
        return "node" if a // self.devices_per_node == b // self.devices_per_node else "network"

    def describe(self) -> dict[str, int]:
        """The numbers kept in the header of the records."""
        return {
            "nodes": self.nodes,
            "devices_per_node": self.devices_per_node,
            "devices_per_package": self.devices_per_package,
            "tensor": self.tensor,
            "pipeline": self.pipeline,
            "virtual_stages": self.virtual_stages,
            "data": self.data,
            "expert": self.expert,
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "secondary": self.secondary,
        }


def hops(ranks: tuple[int, ...], rank: int, devices_per_node: int) -> tuple[tuple[int, ...], ...]:
    """The part of ``ranks`` on the node of ``rank``, then those that stand for it on all their nodes.

    There is one hop if the ranks share a node, or if nodes hold one or unequal numbers of them.
    """
    nodes: dict[int, list[int]] = {}
    for other in ranks:
        nodes.setdefault(other // devices_per_node, []).append(other)
    inside = nodes[rank // devices_per_node]
    if len(nodes) == 1 or len(inside) == 1 or len({len(members) for members in nodes.values()}) > 1:
        return (ranks,)
    index = inside.index(rank)
    return (tuple(inside), tuple(members[index] for members in nodes.values()))
