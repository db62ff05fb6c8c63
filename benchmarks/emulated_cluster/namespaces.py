"""Network namespaces without names, the cables between them, and the kernel's counters.

A namespace here is only a file descriptor of the process that made it. Nothing in the file system or in
the machine's own network refers to it, so that the kernel removes it, with the cables and the shaping in
it, when the last process in it ends, however that ends. Two clusters cannot collide, nor can one touch
what it did not create.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emulated_cluster.topology import INTERFACE, Package, Topology

_CLONE_NEWNET = 0x40000000  # os.setns and os.unshare came with Python 3.12
_libc = ctypes.CDLL(None, use_errno=True)
# As on Slingshot. It keeps the headers at 0.7 % of what is sent.
_MTU_BYTES = 9000
# A shaper that is woken late makes up for it within its burst: with many ranks on few cores, that is late by
# milliseconds. What a link may send at once after a pause is the price.
_BURST_S = 2.5e-3
# What TCP hands over at once. tbf refuses what exceeds its burst, htb owes it.
_LARGEST_PACKET_BYTES = 66_000
_QUEUE_BYTES = 256 << 20  # never full: TCP keeps few packets of a connection in a queue
_COUNTERS = {"package": "qdisc tbf", "node": "class htb 1:1", "network": "class htb 1:2"}


class Fabric:
    """The packages' namespaces, cabled to one bridge in the namespace of the process that makes them."""

    def __init__(self, topology: Topology) -> None:
        self._switch = _own_namespace()
        self._namespaces: dict[Package, int] = {}
        _run("ip", "link add switch type bridge\nlink set switch up")
        for package in topology.packages:
            if _libc.unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot create a network namespace")
            self._namespaces[package] = _own_namespace()
            self._cable(package)
            _run("tc", _shaping(package, topology.rates))
            enter(self._switch)
            _run("ip", f"link set {package.port_name} master switch up")

    def _cable(self, package: Package) -> None:
        """Connect the namespace that this process is in."""
        settings = Path("/proc/sys/net")
        # The machine may prefer one that paces or probes (BBR); here only the shaping is to limit a flow.
        (settings / "ipv4/tcp_congestion_control").write_text("reno")
        for file in settings.glob("ipv6/conf/*/disable_ipv6"):
            file.write_text("1")  # gloo might choose a link-local address
        _run(
            "ip",
            f"link add {INTERFACE} mtu {_MTU_BYTES} type veth"
            f" peer name {package.port_name} mtu {_MTU_BYTES} netns /proc/{os.getpid()}/fd/{self._switch}\n"
            f"address add {package.address}/16 dev {INTERFACE}\n"
            f"link set {INTERFACE} up\n"
            "link set lo up",
        )

    def enter(self, package: Package) -> None:
        """Move this process into a package; its sockets from now on are that package's."""
        enter(self._namespaces[package])

    def bytes_sent(self) -> dict[str, int]:
        """Bytes sent since the start by all packages together, by level, headers included."""
        total = dict.fromkeys(_COUNTERS, 0)
        for package in self._namespaces:
            with self._inside(package):
                counted = _run("tc", f"qdisc show dev lo\nclass show dev {INTERFACE}", "-statistics")
            for level, heading in _COUNTERS.items():
                total[level] += _bytes(counted, heading)
        return total

    @contextmanager
    def _inside(self, package: Package) -> Iterator[None]:
        self.enter(package)
        try:
            yield
        finally:
            enter(self._switch)


def enter(namespace: int) -> None:
    """Move this process into the network namespace of a file descriptor."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def _own_namespace() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _shaping(package: Package, rates: dict[str, float]) -> str:
    """The commands for tc: loopback is the link inside the package, two classes share the cable."""
    inside = _burst(rates["package"], _LARGEST_PACKET_BYTES)
    lines = [
        f"qdisc add dev lo root tbf {_rate(rates['package'])} burst {inside} limit {_QUEUE_BYTES}",
        f"qdisc add dev {INTERFACE} root handle 1: htb default 2",
    ]
    for number, level in enumerate(("node", "network"), start=1):
        burst = _burst(rates[level], _MTU_BYTES)
        lines.append(
            f"class add dev {INTERFACE} parent 1: classid 1:{number} htb {_rate(rates[level])}"
            f" burst {burst} cburst {burst} quantum {_MTU_BYTES}"
        )
    same_node = f"u32 match ip dst {package.node_network} flowid 1:1"
    return "\n".join([*lines, f"filter add dev {INTERFACE} parent 1: protocol ip {same_node}"])


def _rate(bytes_per_s: float) -> str:
    return f"rate {round(8 * bytes_per_s)}bit"


def _burst(bytes_per_s: float, least: int) -> int:
    return max(round(bytes_per_s * _BURST_S), least)


def _run(tool: str, commands: str, *options: str) -> str:
    """Give ip or tc its commands, a line each, in the namespace that this process is in."""
    done = subprocess.run(
        [tool, *options, "-batch", "-"], input=commands + "\n", capture_output=True, text=True
    )
    if done.returncode:
        raise OSError(f"{tool} refused: {done.stderr.strip()}\n{commands}")
    return done.stdout


def _bytes(statistics: str, heading: str) -> int:
    # Text, because tc 6.1 (Debian 12) has no JSON of classes.
    found = re.search(rf"^{heading} [^\n]*\n\s*Sent (\d+) bytes", statistics, re.MULTILINE)
    if not found:
        raise OSError(f"tc reported no {heading}:\n{statistics}")
    return int(found[1])
