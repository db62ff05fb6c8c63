"""Interprets a probe of nodes: which are slow or faulty, at which level, and what to do."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from frontrunner.configs.schema import MachineSpec
from frontrunner.parallelism.layout import LEVELS

#: A link is slow below half of the machine file's rate and half of its level's median.
_SLOW = 0.5
_SLOW_COMPUTE = 0.8
_FREE_MEMORY = 0.9
_CLOCK_S = 1.0


@dataclass(frozen=True)
class Finding:
    """``node`` is a host, or empty for no single one; ``level`` is one of LEVELS, or a topic."""

    node: str
    level: str
    severity: Literal["warning", "error"]
    message: str
    fix: str


def findings(machine: MachineSpec, probe: dict[str, Any]) -> list[Finding]:
    """All problems in a probe's results (``runtime/probe.py``); empty if there are none."""
    ranks: list[dict[str, Any]] = probe["ranks"]
    return [
        *_links(machine, ranks),
        *_compute(machine, ranks, "gemm_flops_per_s", "matrix products"),
        *_compute(machine, ranks, "memory_bytes_per_s", "copies in its memory"),
        *_memory(machine, ranks),
        *_clocks(ranks),
    ]


def hang(rank: int, host: str, what: str) -> Finding:
    """A rank that hung."""
    fix = "change NCCL_NET_GDR_LEVEL or NCCL_NET, or exclude the node (see the recipe's notes)"
    return Finding(host, "groups", "error", f"rank {rank} hangs in {what}", fix)


def _links(machine: MachineSpec, ranks: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    """At most one finding per node and level: a package with a slow link."""
    for level in LEVELS:
        rates = _package_rates(machine, ranks, level)
        expected = getattr(machine.links, level).bandwidth_bytes_per_s
        slow = {rank: rate for rank, rate in rates.items() if rate < _SLOW * expected}
        if len(slow) == len(rates) > 2 and _alike(list(slow.values())):
            median = statistics.median(slow.values())
            message = f"all links carry about {_rate(median)} per device, expected {_rate(expected)}"
            fix = "check that the network plugin is loaded, or run `frontrunner calibrate`"
            yield Finding("", level, "error", message, fix)
            continue
        for host in sorted({_node(machine, ranks, rank) for rank in slow}):
            worst, rank = min((rate, r) for r, rate in slow.items() if _node(machine, ranks, r) == host)
            message = (
                f"the package of rank {rank} sends {_rate(worst)} per device, expected {_rate(expected)}"
            )
            yield Finding(host, level, "error", message, "exclude the node and report it to the site")


def _package_rates(machine: MachineSpec, ranks: Sequence[dict[str, Any]], level: str) -> dict[int, float]:
    """Bytes/s per device, by the first rank of each package; the ranks of a package share a link.

    Each try counts the slowest rank of a package, because the first one had the link to itself. The result is
    the best try.
    """
    size, found = machine.devices_per_package, {}
    for first in range(0, len(ranks), size):
        tries = [r["sent_bytes_per_s"].get(level) for r in ranks[first : first + size]]
        known = [rates for rates in tries if rates is not None]
        if known:
            found[first] = max(min(together) for together in zip(*known, strict=True))
    return found


def _alike(rates: list[float]) -> bool:
    return min(rates) > _SLOW * max(rates)


def _compute(machine: MachineSpec, ranks: Sequence[dict[str, Any]], key: str, what: str) -> Iterator[Finding]:
    """Devices far below the median; processes that share a CPU are not compared."""
    rates = {n: r[key] for n, r in enumerate(ranks) if r.get(key) is not None}
    if machine.device.kind == "cpu" or len(rates) < 3:
        return
    median = statistics.median(rates.values())
    for rank, rate in rates.items():
        if rate < _SLOW_COMPUTE * median:
            message = f"rank {rank} does {what} at {rate / median:.0%} of the others' median"
            yield Finding(
                _node(machine, ranks, rank),
                "device",
                "error",
                message,
                "exclude the node and report it to the site",
            )


def _memory(machine: MachineSpec, ranks: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    for rank, found in enumerate(ranks):
        free = found.get("free_memory_bytes")
        if free is not None and free < _FREE_MEMORY * machine.device.memory_bytes:
            message = (
                f"rank {rank} finds {free / 2**30:.1f} GiB free of {machine.device.memory_bytes / 2**30:.1f}"
            )
            fix = "exclude the node: a process of an earlier job may still run there"
            yield Finding(_node(machine, ranks, rank), "device", "error", message, fix)


def _clocks(ranks: Sequence[dict[str, Any]]) -> Iterator[Finding]:
    median = statistics.median(r["clock_s"] for r in ranks)
    for host in dict.fromkeys(r["host"] for r in ranks):
        off = statistics.median(r["clock_s"] for r in ranks if r["host"] == host) - median
        if abs(off) > _CLOCK_S:
            message = f"its clock is {off:+.1f} s off the median"
            yield Finding(
                host, "clock", "warning", message, "report it to the site; times in its logs are off"
            )


def _node(machine: MachineSpec, ranks: Sequence[dict[str, Any]], rank: int) -> str:
    """The host, with a node number if one host emulates several nodes."""
    host: str = ranks[rank]["host"]
    number = rank // machine.devices_per_node
    alike = {n // machine.devices_per_node for n, r in enumerate(ranks) if r["host"] == host}
    return host if len(alike) == 1 else f"{host}#{number}"


def _rate(value: float) -> str:
    return f"{value / 1e9:.2f} GB/s" if value >= 1e8 else f"{value / 1e6:.2f} MB/s"
