"""Ranks on the wrong devices are found, and named, where the layout means packages."""

from __future__ import annotations

import itertools

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.placement import Place, check, misbound

BUSES = ["c1", "c6", "c9", "ce", "d1", "d6", "d9", "de"]


def run(sharding: str = "three_level", machine: str = "frontier", tensor: int = 1) -> RunSpec:
    overrides = ["nodes=2", "layout.pipeline=1", f"layout.tensor={tensor}", "training.global_batch_size=640"]
    return load_run(
        "gpt-22b-frontier", [*overrides, f"machine={machine}", f"layout.sharding={sharding}"]
    ).spec


def places(order: list[str], hosts: tuple[str, ...] = ("a", "b")) -> list[Place]:
    return [Place(host, bus) for host in hosts for bus in order]


def refusal(spec: RunSpec, found: list[Place]) -> str:
    with pytest.raises(SpecError) as caught:
        check(Layout.from_spec(spec), spec.machine, found)
    return str(caught.value)


@pytest.mark.parametrize("machine", ["frontier", "lumi-g"])
def test_the_order_of_the_site_is_right(machine: str) -> None:
    spec = run(machine=machine)
    check(Layout.from_spec(spec), spec.machine, places(BUSES))


def test_packages_in_another_order_are_right() -> None:
    """As `--gpu-bind=closest` deals them out: rank 0 on device 4."""
    spec = run()
    check(Layout.from_spec(spec), spec.machine, places(["d1", "d6", "c9", "ce", "d9", "de", "c1", "c6"]))


def test_pairs_across_packages_are_named() -> None:
    text = refusal(run(), places(["c1", "c9", "c6", "ce", "d1", "d6", "d9", "de"]))
    assert "ranks 0 on a on PCI bus c1 (package 0) and 1 on a on PCI bus c9 (package 1)" in text
    assert "2 on a" in text and "8 on b" in text and "4 on a" not in text


def test_every_wrong_order_of_a_node_is_found() -> None:
    spec = run()
    layout = Layout.from_spec(spec)
    for order in itertools.islice(itertools.permutations(BUSES), 0, 40320, 97):
        right = all(BUSES.index(order[n]) // 2 == BUSES.index(order[n + 1]) // 2 for n in (0, 2, 4, 6))
        if right:
            check(layout, spec.machine, places(list(order)))
        else:
            refusal(spec, places(list(order)))


def test_a_package_across_nodes_and_a_device_of_two_ranks() -> None:
    cyclic = [Place(host, bus) for bus in BUSES for host in ("a", "b")]
    assert "ranks 0 on a on PCI bus c1 (package 0) and 1 on b" in refusal(run(), cyclic)
    text = refusal(run(), places(["c1", "c1", *BUSES[2:]]))
    assert "ranks 0, 1 all drive the device on PCI bus c1 of a" in text


def test_tensor_groups_of_a_package_count_too() -> None:
    wrong = places(["c1", "c9", "c6", "ce", "d1", "d6", "d9", "de"])
    assert "ranks 0 on a" in refusal(run("zero1", tensor=2), wrong)


def test_layouts_that_mean_no_package_run_anywhere() -> None:
    spec = run("zero1")
    check(Layout.from_spec(spec), spec.machine, places(BUSES[::-1]))
    check(Layout.from_spec(spec), spec.machine, [Place("a") for _ in range(16)])


def test_nothing_is_claimed_of_unknown_devices() -> None:
    spec = run()
    check(Layout.from_spec(spec), spec.machine, places(["01", "02", "03", "04", "05", "06", "07", "08"]))
    check(Layout.from_spec(spec), spec.machine, [Place("a") for _ in range(16)])


def test_ranks_away_from_their_cores_are_named() -> None:
    machine = run().machine
    near = [Place("a", p.pci_bus, frozenset(p.core_numbers())) for p in machine.site.devices]
    assert misbound(machine, near) == []
    away = [*near[:1], Place("a", "c6", frozenset({1, 2})), Place("a", "c9"), Place("a")]
    assert misbound(machine, away) == ["rank 1 on a drives device 1 but may not use its cores 57-63"]
