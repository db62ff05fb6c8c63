"""Times of messages against the bytes that the engine's own formula counts rank by rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frontrunner.configs.load import load_machine
from frontrunner.configs.sharding import Preset
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.collectives import Fabric, efficiency
from frontrunner.parallelism.planner.traffic import Units, traffic
from support.specs import GPT, run_spec

UNITS = Units(layers=8e6, first_layer=1e6, embedding=0.0, output=0.0, tied=False)
WIRE = dict.fromkeys(("weights", "gradients", "network"), "bfloat16")


def array(value: float) -> Any:
    return np.array([float(value)])


@pytest.mark.parametrize("preset", ["three_level", "zero3", "hsdp"])
@pytest.mark.parametrize(("nodes", "packages"), [(1, 4), (2, 4), (4, 2)])
def test_links_are_busy_for_the_bytes_of_the_busiest_package(
    preset: Preset, nodes: int, packages: int
) -> None:
    spec = run_spec(
        model=GPT,
        nodes=nodes,
        packages=packages,
        devices=2,
        sharding=preset,
        wire=WIRE,
        training={"global_batch_size": nodes * packages * 2, "precision": "bfloat16"},
    )
    layout = Layout.from_spec(spec)
    sent = traffic(spec, layout, UNITS, busiest=True)
    machine = load_machine("emulated").model_copy(update={"packages_per_node": packages, "num_nodes": 4})
    quick = {level: getattr(machine.links, level).model_copy(update={"latency_s": 0.0}) for level in LEVELS}
    fabric = Fabric(
        machine.model_copy(update={"links": machine.links.model_copy(update=quick)}), software=None
    )
    numel, one = 2 * UNITS.numel, array(1)
    found = {
        "forward": fabric.ring(array(layout.weights), one, array(numel)),
        "reduction": fabric.exchange(
            array(layout.optimizer / layout.gradients),
            array(layout.gradients),
            array(numel / layout.gradients),
        ),
        "update": fabric.ring(
            array(layout.optimizer / layout.gradients),
            array(layout.gradients),
            array(numel / layout.gradients),
        )
        + fabric.ring(
            array(layout.gradients / layout.weights), array(layout.weights), array(numel / layout.weights)
        ),
    }
    if layout.data > layout.optimizer:
        found.pop("reduction")  # replicas come in as well
    for phase, times in found.items():
        for level in LEVELS:
            rate = getattr(machine.links, level).bandwidth_bytes_per_s
            counted = getattr(sent, phase)[level]
            assert getattr(times, level)[0] * rate == pytest.approx(counted, rel=0.01, abs=1), (phase, level)


def test_a_ring_of_a_library_is_as_fast_as_its_slowest_level() -> None:
    machine = load_machine("frontier")
    fabric = Fabric(machine, machine.software["2023"])
    total = 2.73 * 2**30
    # 2.73 GiB all-reduced by rings with one device a node: 614 ms over 2, 1144 ms over 32 in LUMI's log.
    lumi = load_machine("lumi-g")
    measured = {2: 0.614, 4: 0.903, 8: 1.041, 16: 1.112, 32: 1.144}
    for ranks, seconds in measured.items():
        ring = Fabric(lumi, lumi.software["2023"]).ring(array(ranks), array(8), array(total))
        assert 2 * ring.longest[0] == pytest.approx(seconds, rel=0.05), ranks
    inside, across = (
        fabric.ring(array(8), array(1), array(total)),
        fabric.ring(array(16), array(1), array(total)),
    )
    assert inside.network[0] == 0 < inside.node[0]
    assert across.node[0] == 0 < across.network[0]
    assert fabric.ring(array(1), array(1), array(total)).longest[0] == 0


def test_latency_grows_with_ranks_and_messages() -> None:
    machine = load_machine("frontier")
    fabric = Fabric(machine, machine.software["2025"])
    small = array(1)
    few = fabric.ring(array(64), array(1), small).longest[0]
    many = fabric.ring(array(4096), array(1), small).longest[0]
    assert many / few == pytest.approx(4095 / 63, rel=1e-3)
    scattered = fabric.reduce_scatter(array(64), array(1), small).longest[0]
    assert scattered / few == pytest.approx(168 / 33, rel=0.1)
    assert fabric.ring(array(64), array(1), small, array(10)).longest[0] == pytest.approx(10 * few, rel=1e-3)


def seconds(ranks: int, total: float, name: str = "ring", machine: str = "frontier") -> float:
    """Seconds of a collective of ``total`` bytes over neighbouring ranks, with software of 2025."""
    spec = load_machine(machine)
    times = getattr(Fabric(spec, spec.software["2025"]), name)(array(ranks), array(1), array(total))
    return float(getattr(times, "longest", times)[0])


def test_rccl_is_as_fast_as_micro_benchmarks() -> None:
    """Sources of the figures: machines.md's, named in the machine file."""
    assert seconds(16, 512e6) == pytest.approx(5.3e-3, rel=0.2)  # torch's all-gather, 775 Gbps
    assert seconds(16, 512e6, "all_reduce") == pytest.approx(9.75e-3, rel=0.2)  # 840 Gbps
    # RCCL #1490, 32 ranks: 0.107 ms (64 KiB) to 1.457 ms (1 MiB).
    assert 107e-6 < seconds(32, 2**18) < 1457e-6


def test_rccl_at_scale_is_slower_than_a_hierarchical_library_by_pccls_factors() -> None:
    """PCCL, arXiv 2504.18658, 2,048 devices: 33 times for an all-gather, 168 for a reduce-scatter. That
    library gathers over nodes in log2 steps on all interfaces, then inside the node. Both latencies were
    derived from these factors at 64 MB, so this holds the derivation and not the model."""
    total, spec = 64e6, load_machine("frontier")
    links = spec.links
    across = total / 8 / links.network.bandwidth_bytes_per_s + 8 * links.network.latency_s
    hierarchical = across + total / links.node.bandwidth_bytes_per_s
    for name, published in (("ring", 33), ("reduce_scatter", 168)):
        assert seconds(2048, total, name) / hierarchical == pytest.approx(published, rel=0.1), name


def test_the_network_carries_less_between_groups() -> None:
    groups = load_machine("frontier").links.groups
    nodes = np.array([1.0, 64, 128, 256, 1024, 4096, 1e9])
    found = efficiency(groups, nodes)
    assert list(found[:3]) == [1, 1, 1]
    assert all(np.diff(found[2:]) < 0)
    assert found[-1] == pytest.approx(0.57, rel=0.01)
    assert all(efficiency(None, nodes) == 1)


@pytest.mark.parametrize(("ranks", "links"), [(2, 1), (4, 3), (8, 7)])
def test_fewer_devices_of_a_full_mesh_use_fewer_links(ranks: int, links: int) -> None:
    """MI300X: an all-reduce over two devices has 47.7 GB/s, over eight 312.9."""
    machine = load_machine("mi300x")
    software = machine.software["2025"]
    fabric = Fabric(machine, software)
    latency, numel = machine.links.node.latency_s, 8e9
    rate = (
        numel
        * (ranks - 1)
        / ranks
        / (fabric.ring(array(ranks), array(1), array(numel)).node - (ranks - 1) * latency)
    )
    assert rate[0] == pytest.approx(software.rings.node * links / 7)
    sent = fabric.exchange(array(ranks), array(1), array(numel)).node - latency
    assert numel * (ranks - 1) / ranks / sent[0] == pytest.approx(software.rings.node * links / 7)
    assert software.rings.node / 7 == pytest.approx(47.7e9, rel=0.07)
