"""Seconds that messages take on each level of the machine.

The ranks of a group are ``stride`` devices apart and fill whole packages and nodes. With the rates of a
collective library (``software.rings``):

- an all-gather or reduce-scatter over n ranks is a ring: (n - 1) / n of the bytes at the slowest level's
  rate, and a latency for each of n - 1 steps (Thakur et al. 2005, section 4.1). RCCL has no other algorithm
  for them (PCCL, arXiv 2504.18658). Between nodes, steps and bytes overlap: their times combine as the root
  of the sum of squares. A step of few bytes takes less: see :meth:`Fabric.step_s`;
- an all-reduce is the faster of a ring, with 2 (n - 1) steps, and a tree, with 2 log2 n;
- :meth:`Fabric.hierarchical` is what PCCL does instead: inside the node, then between nodes among the ranks
  of equal number in their nodes, in log2 steps;
- between groups of nodes the network carries less: see :func:`efficiency`.

The latencies and forms are those of PCCL's own measurements on Frontier
(tests/parallelism/planner/collectives.yaml), never of training runs.

Without such rates, links are shares of what a package has: a ring leaves a package, and a node, through one
device, whose link carries all the ring's bytes (as gloo does).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from frontrunner.configs.schema import MachineSpec
from frontrunner.configs.software import SoftwareSpec
from frontrunner.configs.topology import GroupsSpec
from frontrunner.parallelism.planner.candidates import Array


@dataclass(frozen=True)
class Times:
    """Seconds [n] for which a device's link on each level is busy."""

    package: Array
    node: Array
    network: Array

    def __add__(self, other: Times) -> Times:
        return Times(self.package + other.package, self.node + other.node, self.network + other.network)

    def __mul__(self, factor: Array | float) -> Times:
        return Times(self.package * factor, self.node * factor, self.network * factor)

    @property
    def longest(self) -> Array:
        """Levels work in parallel, so the slowest counts."""
        return np.maximum(np.maximum(self.package, self.node), self.network)


def efficiency(groups: GroupsSpec | None, nodes: Array) -> Array:
    """Share of the network's bandwidth that ``nodes`` nodes reach: 1 in a group, towards ``taper`` beyond.

    The nodes of a job lie anywhere in their groups. So a share of 1 - group / nodes of the messages leaves a
    group, at the tapered rate.
    """
    if groups is None:
        return np.ones_like(nodes)
    leaving = 1 - np.minimum(1.0, groups.nodes / np.maximum(nodes, 1.0))
    found: Array = 1 / (1 + leaving * (1 / groups.taper - 1))
    return found


class Fabric:
    """The links of a machine with the software of one year."""

    def __init__(self, machine: MachineSpec, software: SoftwareSpec | None) -> None:
        self.machine = machine
        self.rings = software.rings if software else None

    def ring(
        self,
        ranks: Array,
        stride: Array,
        total: Array,
        messages: Array | float = 1.0,
        latency_s: float | None = None,
    ) -> Times:
        """A ring of ``total`` bytes over ``ranks``, in ``messages`` messages: by default an
        all-gather; ``latency_s`` is the latency of a step between nodes."""
        links, package_size = self.machine.links, self.machine.devices_per_package
        in_package, in_node = self._spread(ranks, stride)
        sent = total * (ranks - 1) / ranks
        steps = messages * (ranks - 1)
        within = ranks <= in_package
        node_only = ~within & (ranks <= in_node)
        beyond = ranks > in_node
        if self.rings:
            step = self.step_s(total / messages / ranks, latency_s)
            between: Array = np.hypot(sent / self._between_nodes(ranks, stride), steps * step)
            return Times(
                within * (sent / self.rings.package + steps * links.package.latency_s),
                node_only * (sent / self._node_rate(ranks) + steps * links.node.latency_s),
                beyond * between,
            )
        inside = np.where(within, 1.0, 1 - 1 / in_package)
        crossing = np.minimum(stride, package_size) / package_size
        nodes_cross = ~within & (in_node > in_package)
        return Times(
            inside * sent / links.package.bandwidth_bytes_per_s + within * steps * links.package.latency_s,
            nodes_cross * crossing * sent / links.node.bandwidth_bytes_per_s
            + node_only * steps * links.node.latency_s,
            beyond
            * (crossing * sent / links.network.bandwidth_bytes_per_s + steps * links.network.latency_s),
        )

    def step_s(self, chunk: Array, latency_s: float | None = None) -> Array:
        """Seconds of latency of a step between nodes that sends ``chunk`` bytes: the whole latency from
        ``whole_step_bytes`` on, below that it falls with the root of the bytes."""
        assert self.rings
        whole = self.rings.across_latency_s if latency_s is None else latency_s
        step: Array = whole * np.sqrt(np.minimum(1.0, chunk / self.rings.whole_step_bytes))
        return step

    def reduce_scatter(
        self, ranks: Array, stride: Array, total: Array, messages: Array | float = 1.0
    ) -> Times:
        """A reduce-scatter of ``total`` bytes over ``ranks``, in ``messages`` messages."""
        latency = self.rings.reduce_latency_s if self.rings else None
        return self.ring(ranks, stride, total, messages, latency)

    def all_reduce(self, ranks: Array, stride: Array, total: Array, messages: Array | float = 1.0) -> Array:
        """Seconds of an all-reduce: a reduce-scatter and an all-gather, or trees, whichever is faster."""
        halves: Array = self.reduce_scatter(ranks, stride, total, messages).longest
        halves = halves + self.ring(ranks, stride, total, messages).longest
        _, in_node = self._spread(ranks, stride)
        if not self.rings or self.rings.tree_latency_s is None:
            return halves
        sent = 2 * total * (ranks - 1) / ranks / self._between_nodes(ranks, stride)
        levels = 2 * messages * np.log2(np.maximum(ranks, 2))
        tree = np.hypot(sent, levels * self.rings.tree_latency_s)
        return np.where(ranks > in_node, np.minimum(halves, tree), halves)

    def hierarchical(self, ranks: Array, stride: Array, total: Array) -> Array:
        """Seconds of an all-gather or reduce-scatter of ``total`` bytes on two levels, one after the other:
        inside the node, and between nodes by recursive doubling or halving among the ranks of equal number
        in their nodes, whose messages use all network interfaces at the rate of plain messages."""
        links = self.machine.links
        _, in_node = self._spread(ranks, stride)
        nodes = ranks / in_node
        rate = links.network.bandwidth_bytes_per_s * self._efficiency(ranks, stride)
        across = total / in_node * (nodes - 1) / nodes / rate + np.log2(nodes) * links.network.latency_s
        inside = self.ring(in_node, stride, total).longest
        seconds: Array = inside + across
        return seconds

    def exchange(self, ranks: Array, stride: Array, total: Array, messages: Array | float = 1.0) -> Times:
        """An all-to-all of ``total`` bytes: inside the node first, then the rest between nodes."""
        links = self.machine.links
        in_package, in_node = self._spread(ranks, stride)
        link_rate = self.rings.point_to_point if self.rings else links.network.bandwidth_bytes_per_s
        network_rate = link_rate * self._efficiency(ranks, stride)
        network_latency = self.rings.across_latency_s if self.rings else links.network.latency_s
        node_rate = self._node_rate(in_node)
        package_rate = self.rings.package if self.rings else links.package.bandwidth_bytes_per_s
        nodes = ranks / in_node
        return Times(
            total * (in_package - 1) / in_node / package_rate + (in_package > 1) * links.package.latency_s,
            total * (in_node - in_package) / in_node / node_rate
            + (in_node > in_package) * links.node.latency_s,
            total / in_node * (nodes - 1) / nodes / network_rate
            + (nodes > 1) * (nodes - 1) * messages * network_latency,
        )

    def all_to_all(self, ranks: Array, stride: Array, each: Array) -> Times:
        """Messages of ``each`` bytes from every rank to every other one, without a detour."""
        links = self.machine.links
        in_package, in_node = self._spread(ranks, stride)
        network_rate = self.rings.point_to_point if self.rings else links.network.bandwidth_bytes_per_s
        latency = self.rings.across_latency_s if self.rings else links.network.latency_s
        package_rate = self.rings.package if self.rings else links.package.bandwidth_bytes_per_s
        return Times(
            each * (in_package - 1) / package_rate + (in_package > 1) * links.package.latency_s,
            each * (in_node - in_package) / self._node_rate(in_node)
            + (in_node > in_package) * links.node.latency_s,
            (ranks - in_node) * (each / network_rate / self._efficiency(ranks, stride) + latency),
        )

    def message(self, total: Array) -> Array:
        """Seconds of a message to another node."""
        link = self.machine.links.network
        rate = self.rings.point_to_point if self.rings else link.bandwidth_bytes_per_s
        return total / rate + link.latency_s

    def _between_nodes(self, ranks: Array, stride: Array) -> Array:
        """Bytes/s per device of a ring or tree between nodes."""
        assert self.rings
        _, in_node = self._spread(ranks, stride)
        whole = in_node >= self.machine.devices_per_node
        rate = np.where(whole, self.rings.whole_nodes, self.rings.across_nodes)
        found: Array = rate * self._efficiency(ranks, stride)
        return found

    def _node_rate(self, ranks: Array) -> Array:
        """Bytes/s between ``ranks`` devices of a node."""
        if self.rings is None:
            return np.full_like(ranks, self.machine.links.node.bandwidth_bytes_per_s)
        links = self.machine.devices_per_node - 1
        share = np.clip(ranks - 1, 1, links) / links if self.rings.full_mesh and links else 1.0
        rate: Array = self.rings.node * share * np.ones_like(ranks)
        return rate

    def _efficiency(self, ranks: Array, stride: Array) -> Array:
        return efficiency(self.machine.links.groups, ranks * stride / self.machine.devices_per_node)

    def _spread(self, ranks: Array, stride: Array) -> tuple[Array, Array]:
        """How many ranks of a group share a package, and how many a node."""
        in_package = np.minimum(ranks, np.maximum(1.0, self.machine.devices_per_package / stride))
        in_node = np.minimum(ranks, np.maximum(1.0, self.machine.devices_per_node / stride))
        return in_package, in_node
