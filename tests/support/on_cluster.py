"""What tests run on the ranks of an emulated cluster, which import this module and little else."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from frontrunner.parallelism.rendezvous import Rendezvous


def surroundings(place: Rendezvous) -> dict[str, Any]:
    """What a rank sees of the cluster."""
    return {
        "place": place,
        "environment": dict(os.environ),
        "namespace": str(Path("/proc/self/ns/net").readlink()),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "processes": len(list(Path("/proc").glob("[0-9]*"))),
    }


def large(place: Rendezvous, size: int) -> bytes:
    return bytes([place.rank]) * size


def fail(place: Rendezvous, culprit: int) -> None:
    """One rank fails, the others wait for ever."""
    if place.rank == culprit:
        raise ValueError("the culprit's own words")
    time.sleep(1000)
