"""Seconds that messages take on each level of the machine.

The ranks of a group are ``stride`` devices apart and fill whole packages and nodes. With the rates of a
collective library (``software.rings``):

- an all-gather or reduce-scatter over n ranks is a ring: (n - 1) / n of the bytes at the slowest level's
  rate, plus a latency for each of n - 1 steps (Thakur et al. 2005, section 4.1). RCCL has no other algorithm
  for them, and steps of its reduce-scatter take longer (PCCL, arXiv 2504.18658);
- an all-reduce is a tree: the bytes of two rings, with a latency that grows with log2 n;
- between groups of nodes the network carries less: see :func:`efficiency`.

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
            whole = in_node >= self.machine.devices_per_node
            network = np.where(whole, self.rings.whole_nodes, self.rings.across_nodes)
            network = network * self._efficiency(ranks, stride)
            step = self.rings.across_latency_s if latency_s is None else latency_s
            return Times(
                within * (sent / self.rings.package + steps * links.package.latency_s),
                node_only * (sent / self._node_rate(ranks) + steps * links.node.latency_s),
                beyond * (sent / network + steps * step),
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

    def reduce_scatter(
        self, ranks: Array, stride: Array, total: Array, messages: Array | float = 1.0
    ) -> Times:
        """A reduce-scatter of ``total`` bytes over ``ranks``, in ``messages`` messages."""
        latency = self.rings.reduce_latency_s if self.rings else None
        return self.ring(ranks, stride, total, messages, latency)

    def all_reduce(self, ranks: Array, stride: Array, total: Array) -> Array:
        """Seconds of an all-reduce: the bytes of two rings, in trees with only log2 as many steps."""
        rings = self.ring(ranks, stride, total, 0.0).longest
        latency = self.rings.across_latency_s if self.rings else self.machine.links.network.latency_s
        seconds: Array = 2 * (rings + (rings > 0) * latency * np.log2(ranks))
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

    def message(self, total: Array) -> Array:
        """Seconds of a message to another node."""
        link = self.machine.links.network
        rate = self.rings.point_to_point if self.rings else link.bandwidth_bytes_per_s
        return total / rate + link.latency_s

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
