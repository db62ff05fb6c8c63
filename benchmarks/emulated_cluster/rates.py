"""Whether the links carry what they are set to: plain TCP between ranks, all transfers at once."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from frontrunner.parallelism.rendezvous import Rendezvous

_FIRST_PORT = 30000
_CHUNK = bytes(1 << 18)
_CONNECT_S = 30.0


class Transfer(NamedTuple):
    """``size`` bytes from one rank to another."""

    sender: int
    receiver: int
    size: int


def transfers_of_packages(topology: Topology, seconds: float) -> list[Transfer]:
    """Every package sends on each level that it has, as much as fits into ``seconds``."""
    size = topology.devices_per_package
    found = []
    for rank in range(0, topology.world_size, size):
        node, place = divmod(rank, topology.devices_per_node)
        neighbour = node * topology.devices_per_node + (place + size) % topology.devices_per_node
        far = (rank + topology.devices_per_node) % topology.world_size
        for receiver in (rank + size - 1, neighbour, far):
            if receiver != rank:
                found.append(
                    Transfer(rank, receiver, round(topology.rates[topology.level(rank, receiver)] * seconds))
                )
    return found


def measure(cluster: EmulatedCluster, transfers: Sequence[Transfer], timeout_s: float = 120) -> list[float]:
    """Bytes/s of each transfer, as its receiver saw it."""
    answers = cluster.call(
        "emulated_cluster.rates:take_part", cluster.topology, tuple(transfers), timeout_s=timeout_s
    )
    seen: dict[int, float] = {}
    for answer in answers:
        seen.update(answer)
    return [seen[number] for number in range(len(transfers))]


def take_part(place: Rendezvous, topology: Topology, transfers: Sequence[Transfer]) -> dict[int, float]:
    """One rank's part: sends what it is to send, and measures what it receives by the transfer's number."""
    with ThreadPoolExecutor(max_workers=max(1, 2 * len(transfers))) as pool:
        received = {}
        for number, transfer in enumerate(transfers):
            if transfer.receiver == place.rank:
                received[number] = pool.submit(_receive, number, transfer.size)
        sent = [
            pool.submit(_send, topology.package_of(transfer.receiver).address, number, transfer.size)
            for number, transfer in enumerate(transfers)
            if transfer.sender == place.rank
        ]
        for sending in sent:
            sending.result()
        return {number: result.result() for number, result in received.items()}


def _receive(number: int, size: int) -> float:
    with socket.create_server(("", _FIRST_PORT + number)) as server:
        server.settimeout(_CONNECT_S)
        connection, _ = server.accept()
    buffer = bytearray(1 << 18)
    with connection:
        start, left = time.perf_counter(), size
        while left:
            got = connection.recv_into(buffer)
            if not got:
                raise ConnectionError(f"transfer {number} ended {left} bytes early")
            left -= got
        return size / (time.perf_counter() - start)


def _send(address: str, number: int, size: int) -> None:
    with _connect(address, _FIRST_PORT + number) as connection:
        for start in range(0, size, len(_CHUNK)):
            connection.sendall(memoryview(_CHUNK)[: size - start])


def _connect(address: str, port: int) -> socket.socket:
    deadline = time.monotonic() + _CONNECT_S
    while True:
        try:
            return socket.create_connection((address, port))
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
