"""Emulated clusters for tests, and what they might leave behind."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from emulated_cluster.cluster import unavailable
from emulated_cluster.topology import Topology

from frontrunner.configs.load import load_machine

MARK = "FRONTRUNNER_TEST_MARK"

emulates = pytest.mark.skipif(bool(reason := unavailable()), reason=str(reason))


def topology(nodes: int = 2, packages: int = 2, *, scale: float = 1.0, shaped: bool = True) -> Topology:
    machine = load_machine("emulated").model_copy(update={"packages_per_node": packages})
    return Topology.of(machine, nodes, scale=scale, shaped=shaped)


def marked(entry: str) -> list[str]:
    """The command lines of the processes with the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={entry}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it ended while we looked
            continue
    return found


def machine_state() -> dict[str, object]:
    """What a cluster must leave alone."""
    named = Path("/run/netns")
    return {
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "named namespaces": sorted(path.name for path in named.iterdir()) if named.exists() else None,
        "mounts": Path("/proc/self/mounts").read_text(),
        "hosts": Path("/etc/hosts").read_text(),
        "held here": [fd for fd in Path("/proc/self/fd").iterdir() if _link(fd).startswith("net:")],
    }


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # the descriptor that lists the folder
        return ""
