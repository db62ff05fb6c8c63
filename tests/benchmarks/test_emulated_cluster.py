from __future__ import annotations

import json
import signal
from pathlib import Path

import emulate
import pytest
from emulated_cluster import cluster as cluster_module
from emulated_cluster.cluster import ClusterError, EmulatedCluster
from emulated_cluster.rates import Transfer, measure, transfers_of_packages
from emulated_cluster.topology import Package, Topology

from frontrunner.configs.load import load_machine
from support.emulation import emulates, topology

LEVELS = ("package", "node", "network")


def test_levels_and_rates_follow_the_machine_file() -> None:
    found = Topology.of(load_machine("emulated"), 2, scale=0.5)
    assert found.rates == {"package": 25e6, "node": 12.5e6, "network": 3.125e6}
    assert (found.world_size, found.devices_per_node) == (16, 8)
    assert [found.package_of(rank) for rank in (0, 1, 2, 7, 8, 15)] == [
        Package(0, 0),
        Package(0, 0),
        Package(0, 1),
        Package(0, 3),
        Package(1, 0),
        Package(1, 3),
    ]
    assert [found.level(6, other) for other in (7, 5, 8)] == ["package", "node", "network"]
    assert found.variables(9)["LOCAL_RANK"] == "1"
    for wrong in ({"nodes": 0}, {"nodes": 257}, {"nodes": 1, "scale": 0.0}):
        with pytest.raises(ValueError, match=str(wrong.get("scale", wrong["nodes"]))):
            Topology.of(load_machine("emulated"), **wrong)


def test_every_package_sends_on_every_level() -> None:
    shape = topology(nodes=2, packages=2)
    found = transfers_of_packages(shape, 2.0)
    assert [(t.sender, t.receiver) for t in found[:3]] == [(0, 1), (0, 2), (0, 4)]
    assert [t.size for t in found[:3]] == [100e6, 50e6, 12.5e6]
    assert len(found) == 4 * 3
    assert {shape.level(t.sender, t.receiver) for t in transfers_of_packages(topology(1), 1.0)} == {
        "package",
        "node",
    }


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster_module, "_PATH", str(tmp_path))
    with pytest.raises(ClusterError, match="ip and tc and unshare not found: apt-get install iproute2"):
        EmulatedCluster(topology()).__enter__()


@emulates
def test_ranks_find_themselves_in_their_packages(cluster: EmulatedCluster) -> None:
    shape = cluster.topology
    seen = cluster.call("support.on_cluster:surroundings")
    assert [found["place"].rank for found in seen] == list(range(8))
    for rank, found in enumerate(seen):
        assert found["environment"].items() >= shape.variables(rank).items()
        assert found["environment"]["MASTER_ADDR"] == "10.77.0.1"
        assert found["environment"]["OMP_NUM_THREADS"] == "1"
        assert found["interfaces"] == ["hsn0", "lo"]
        assert found["processes"] <= 1 + 8, "sees the machine's own processes"
    namespaces = [found["namespace"] for found in seen]
    assert namespaces[0::2] == namespaces[1::2]
    assert len({*namespaces, str(Path("/proc/self/ns/net").readlink())}) == 4 + 1


@emulates
def test_large_answers_arrive(cluster: EmulatedCluster) -> None:
    answers = cluster.call("support.on_cluster:large", 3_000_000)
    assert [(len(answer), answer[0]) for answer in answers] == [(3_000_000, rank) for rank in range(8)]


@emulates
@pytest.mark.parametrize("level", LEVELS)
def test_links_carry_what_they_are_set_to(cluster: EmulatedCluster, level: str) -> None:
    """Other load on the machine can only slow a link, so that the best of five counts."""
    shape = cluster.topology
    receiver = {"package": 1, "node": 2, "network": 4}[level]
    transfer = Transfer(0, receiver, round(shape.rates[level] * 0.6))
    before = cluster.bytes_sent()
    seen = [measure(cluster, [transfer])[0] / shape.rates[level]]
    while max(seen) < 0.9 and len(seen) < 5:
        seen.append(measure(cluster, [transfer])[0] / shape.rates[level])
    assert 0.9 <= max(seen) <= 1.1
    sent = {name: count - before[name] for name, count in cluster.bytes_sent().items()}
    assert sent[level] == pytest.approx(transfer.size * len(seen), rel=0.03)
    assert sum(sent.values()) - sent[level] < 0.01 * sent[level]


@emulates
def test_levels_do_not_disturb_each_other(cluster: EmulatedCluster) -> None:
    shape = cluster.topology
    # Of one package: all of them at full rates need a core or two for themselves.
    transfers = [t for t in transfers_of_packages(shape, 0.6) if t.sender == 0]
    best = [0.0] * len(transfers)
    for _ in range(5):
        before = cluster.bytes_sent()
        seen = measure(cluster, transfers)
        rates = [shape.rates[shape.level(t.sender, t.receiver)] for t in transfers]
        best = [max(old, now / rate) for old, now, rate in zip(best, seen, rates, strict=True)]
        if min(best) >= 0.9:
            break
    assert 0.9 <= min(best) <= max(best) <= 1.1
    sent = {name: count - before[name] for name, count in cluster.bytes_sent().items()}
    for level in LEVELS:
        size = sum(t.size for t in transfers if shape.level(t.sender, t.receiver) == level)
        assert sent[level] == pytest.approx(size, rel=0.03)


@emulates
def test_the_first_failure_is_told_and_the_others_are_ended(cluster: EmulatedCluster) -> None:
    with pytest.raises(ClusterError, match="rank 5 failed: (.|\n)*the culprit's own words"):
        cluster.call("support.on_cluster:fail", 5)
    with pytest.raises(ClusterError, match="rank . failed: (.|\n)*no_such_module"):
        cluster.call("no_such_module:function")
    assert len(cluster.call("support.on_cluster:large", 1)) == 8


@emulates
def test_programs_end_with_the_code_of_the_first_failure(cluster: EmulatedCluster) -> None:
    assert cluster.execute(["true"]) == 0
    assert cluster.execute(["sh", "-c", "[ $RANK != 3 ] || exit 7; sleep 1000"]) == 7
    assert cluster.execute(["sh", "-c", "kill -USR1 $$"]) == 128 + signal.SIGUSR1
    assert cluster.execute(["no-such-program"]) == 1
    with pytest.raises(ClusterError, match=r"ranks \[1, 2, 3, 4, 5, 6, 7\] had not ended after 0.5 s"):
        cluster.execute(["sh", "-c", "[ $RANK = 0 ] || sleep 1000"], timeout_s=0.5)


@emulates
def test_unshaped_links_do_not_wait() -> None:
    transfer = Transfer(0, 4, 50_000_000)
    with EmulatedCluster(topology(shaped=False), preload=()) as up:
        assert measure(up, [transfer])[0] > 4 * topology().rates["network"]
        assert up.bytes_sent()["network"] == pytest.approx(transfer.size, rel=0.03)


RUN = """
name: emulated
model: {extends: gpt-tiny, num_layers: 2}
machine: {extends: emulated, packages_per_node: 1}
nodes: 2
layout: {sharding: {preset: three_level}}
training: {seq_len: 16, global_batch_size: 4, precision: float32}
data: synthetic
"""


@emulates
def test_trains_and_the_kernel_counts_what_the_engine_counts(tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(RUN)
    counted, recorded = [], []
    with EmulatedCluster(topology(packages=1, shaped=False)) as up:
        for steps in (2, 4):
            folder = tmp_path / str(steps)
            command = ["frontrunner", "train", str(run), "-o", f"training.steps={steps}"]
            assert up.execute([*command, "--run-dir", str(folder)], timeout_s=120) == 0
            counted.append(up.bytes_sent())
            records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
            recorded.append([record for record in records if record["kind"] == "step"])
    assert [len(steps) for steps in recorded] == [2, 4]
    first, both = counted
    for level in ("package", "network"):  # with one package a node nothing stays between
        by_engine = recorded[1][-1]["bytes_sent"][level] * up.topology.world_size * 2
        by_kernel = (both[level] - first[level]) - first[level]
        assert by_kernel == pytest.approx(by_engine, rel=0.05), level
    assert both["node"] == 0


def test_a_program_or_a_measurement_must_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--measure", "--", "true"]):
        with pytest.raises(SystemExit, match="2"):
            emulate.main(arguments)
    assert "give either a program" in capsys.readouterr().err
    assert emulate.main(["--machine", "nowhere", "--", "true"]) == 2
    assert emulate.main(["--nodes", "0", "--", "true"]) == 2
    assert "1 to 256" in capsys.readouterr().err


@emulates
def test_the_command_prints_what_was_sent_and_measured(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulate, "_MEASURED_S", 0.1)
    one_node = ["--nodes", "1", "--scale", "4"]
    assert emulate.main([*one_node, "--", "sh", "-c", "[ $RANK != 7 ] || exit 5"]) == 5
    assert "sent by all packages: package 0.00 MB, node 0.00 MB" in capfd.readouterr().err
    assert emulate.main([*one_node, "--measure"]) == 0
    title, *rows = capfd.readouterr().out.splitlines()
    assert title.split()[:3] == ["level", "set", "MB/s"]
    assert [row.split()[:2] for row in rows] == [["package", "200.00"], ["node", "100.00"]]
