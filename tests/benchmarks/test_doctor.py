"""The doctor on an emulated cluster: silent while all is well, and right about a link that tc slows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emulated_cluster.cluster import EmulatedCluster

from frontrunner.configs.load import load_run
from frontrunner.run_folder import folder as run_folder
from support.emulation import emulates, topology

pytestmark = [emulates, pytest.mark.timeout(280)]
FRONTRUNNER = str(Path(sys.executable).with_name("frontrunner"))
RUN = ["machine=emulated", "machine.packages_per_node=2", "nodes=2", "layout.sharding=three_level"]


@pytest.fixture(scope="module")
def ready() -> Any:
    """Ranks find torch imported."""
    with EmulatedCluster(topology()) as up:
        yield up


def probe(up: EmulatedCluster, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and findings."""
    run_folder.create(folder, load_run("quickstart", RUN).spec)
    assert up.execute([FRONTRUNNER, "doctor", str(folder)], timeout_s=150) == 0
    command = [FRONTRUNNER, "doctor", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=folder)
    return done.returncode, json.loads(done.stdout)["findings"]


def test_a_healthy_cluster_is_silent(ready: EmulatedCluster, tmp_path: Path) -> None:
    assert probe(ready, tmp_path / "healthy") == (0, [])


@pytest.mark.long
@pytest.mark.parametrize(
    ("level", "device", "change"),
    [
        ("network", "hsn0", "class change dev hsn0 parent 1: classid 1:2 htb rate {rate}bit"),
        ("package", "lo", "qdisc change dev lo root tbf rate {rate}bit burst 70000 limit 4000000"),
    ],
)
def test_a_link_at_a_third_is_found(
    ready: EmulatedCluster, tmp_path: Path, level: str, device: str, change: str
) -> None:
    """Rank 4 is the first of the second node."""
    rate = round(ready.topology.rates[level] * 8 / 3)
    slowed = f'[ "$RANK" != 4 ] || tc {change.format(rate=rate)}'
    restored = f'[ "$RANK" != 4 ] || tc {change.format(rate=3 * rate)}'
    assert ready.execute(["sh", "-c", slowed]) == 0
    try:
        code, found = probe(ready, tmp_path / "slow")
    finally:
        assert ready.execute(["sh", "-c", restored]) == 0
    assert code == 1
    assert [(f["node"].partition("#")[2], f["level"], f["severity"]) for f in found] == [
        ("1", level, "error")
    ]
    assert "sends" in found[0]["message"] and found[0]["fix"]
