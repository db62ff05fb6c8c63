"""What an emulated cluster looks like: its ranks, their addresses and the rates of its links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from frontrunner.configs.schema import MachineSpec

INTERFACE = "hsn0"
_PORT = 29500  # free in every cluster: nothing else runs in its namespaces
_UNSHAPED_BYTES_PER_S = 12.5e9  # far beyond what a core copies, so that links count and never wait


class Package(NamedTuple):
    """One network namespace; both numbers count from 0."""

    node: int
    number: int

    @property
    def address(self) -> str:
        return f"10.77.{self.node}.{self.number + 1}"

    @property
    def node_network(self) -> str:
        return f"10.77.{self.node}.0/24"

    @property
    def port_name(self) -> str:
        """The switch's end of this package's cable."""
        return f"n{self.node}p{self.number}"


@dataclass(frozen=True)
class Topology:
    """Nodes of packages of devices; ``rates`` are bytes/s that one package sends at most, by level.

    Levels are ``package`` (to itself), ``node`` (to other packages of its node) and ``network``. Ranks fill
    packages, and packages nodes, in order.
    """

    nodes: int
    packages_per_node: int
    devices_per_package: int
    rates: dict[str, float]

    @classmethod
    def of(cls, machine: MachineSpec, nodes: int, *, scale: float = 1.0, shaped: bool = True) -> Topology:
        """A machine's packages, at ``scale`` times its rates (a package's rate is that of its devices)."""
        if not 0 < nodes <= 256:
            raise ValueError(f"{nodes} nodes: an emulated cluster has 1 to 256")
        if not scale > 0:
            raise ValueError(f"scale {scale}: must be above 0")
        rates = {
            level: getattr(machine.links, level).bandwidth_bytes_per_s * machine.devices_per_package * scale
            for level in ("package", "node", "network")
        }
        if not shaped:
            rates = dict.fromkeys(rates, _UNSHAPED_BYTES_PER_S)
        return cls(nodes, machine.packages_per_node, machine.devices_per_package, rates)

    @property
    def world_size(self) -> int:
        return self.nodes * self.devices_per_node

    @property
    def devices_per_node(self) -> int:
        return self.packages_per_node * self.devices_per_package

    @property
    def packages(self) -> Iterator[Package]:
        return (Package(node, i) for node in range(self.nodes) for i in range(self.packages_per_node))

    def package_of(self, rank: int) -> Package:
        return Package(*divmod(rank // self.devices_per_package, self.packages_per_node))

    def level(self, sender: int, receiver: int) -> str:
        """The link that carries what one rank sends to another."""
        here, there = self.package_of(sender), self.package_of(receiver)
        return "package" if here == there else "node" if here.node == there.node else "network"

    def variables(self, rank: int) -> dict[str, str]:
        """What torchrun would set in the environment of a rank, and the interface to use."""
        return {
            "RANK": str(rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_RANK": str(rank % self.devices_per_node),
            "LOCAL_WORLD_SIZE": str(self.devices_per_node),
            "MASTER_ADDR": self.package_of(0).address,
            "MASTER_PORT": str(_PORT),
            "GLOO_SOCKET_IFNAME": INTERFACE,
        }
