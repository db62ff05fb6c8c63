"""What a probe's figures mean."""

from __future__ import annotations

from typing import Any

import pytest

from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import MachineSpec
from frontrunner.launcher.nodes.diagnosis import findings, hang

MACHINE = load_machine("frontier")
LEVELS = ("package", "node", "network")


def probe(machine: MachineSpec = MACHINE, nodes: int = 2) -> dict[str, Any]:
    """All as the machine file says."""
    rates = {level: [getattr(machine.links, level).bandwidth_bytes_per_s] * 3 for level in LEVELS}
    return {
        "ranks": [
            {
                "host": f"node{rank // machine.devices_per_node}",
                "sent_bytes_per_s": {level: list(rates[level]) for level in LEVELS},
                "gemm_flops_per_s": 120e12,
                "memory_bytes_per_s": 1.3e12,
                "free_memory_bytes": machine.device.memory_bytes,
                "clock_s": 1e9,
            }
            for rank in range(nodes * machine.devices_per_node)
        ]
    }


def test_a_healthy_machine_is_silent() -> None:
    assert findings(MACHINE, probe()) == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_slow_link_has_a_node_and_a_level(level: str) -> None:
    found = probe()
    for rank in (10, 11):
        found["ranks"][rank]["sent_bytes_per_s"][level] = [
            getattr(MACHINE.links, level).bandwidth_bytes_per_s / 3
        ] * 3
    (finding,) = findings(MACHINE, found)
    assert (finding.node, finding.level, finding.severity) == ("node1", level, "error")
    assert "the package of rank 10 sends" in finding.message


def test_one_slow_try_is_no_slow_link_and_two_that_take_turns_are() -> None:
    found = probe()
    found["ranks"][8]["sent_bytes_per_s"]["network"] = [1e9, 11.9e9, 1e9]
    assert findings(MACHINE, found) == []
    found["ranks"][9]["sent_bytes_per_s"]["network"] = [11.9e9, 1e9, 11.9e9]
    assert [f.level for f in findings(MACHINE, found)] == ["network"]


def test_all_slow_alike_is_no_node() -> None:
    found = probe()
    for rank in found["ranks"]:
        rank["sent_bytes_per_s"]["network"] = [2e9] * 3  # TCP instead of the plugin
    (finding,) = findings(MACHINE, found)
    assert finding.node == "" and "network plugin" in finding.fix


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("gemm_flops_per_s", 80e12, "matrix products at 67%"),
        ("memory_bytes_per_s", 0.9e12, "copies in its memory at 69%"),
        ("free_memory_bytes", 40 * 2**30, "40.0 GiB free of 64.0"),
    ],
)
def test_a_sick_device(key: str, value: float, said: str) -> None:
    found = probe()
    found["ranks"][3][key] = value
    (finding,) = findings(MACHINE, found)
    assert finding.node == "node0" and "rank 3" in finding.message and said in finding.message


def test_a_clock_that_is_off() -> None:
    found = probe(nodes=3)
    for rank in found["ranks"][16:]:
        rank["clock_s"] += 5
    (finding,) = findings(MACHINE, found)
    assert (finding.node, finding.severity) == ("node2", "warning") and "+5.0 s" in finding.message


def test_processes_that_share_a_cpu_are_not_compared() -> None:
    machine = load_machine("emulated")
    found = probe(machine)
    found["ranks"][3]["gemm_flops_per_s"] = 1.0
    assert findings(machine, found) == []


def test_a_hang() -> None:
    assert "rank 7 hangs in the group node_hop" in hang(7, "n1", "the group node_hop").message
