"""What a site would refuse is refused before, with its rule and where that is written."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import load_machine, load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.slurm import clock, seconds
from frontrunner.slurm import policy
from support.specs import run_spec


def frontier(*overrides: str, nodes: int = 2) -> RunSpec:
    size = ["layout.pipeline=1", f"nodes={nodes}", f"training.global_batch_size={8 * nodes}"]
    return load_run("gpt-22b-frontier", ["slurm.account=abc123", *size, *overrides]).spec


def refused(spec: RunSpec) -> Violation:
    with pytest.raises(SpecError) as caught:
        policy.schedule(spec)
    (violation,) = caught.value.violations
    return violation


@pytest.mark.parametrize(
    ("nodes", "limit"), [(1, 2), (91, 2), (92, 6), (183, 6), (184, 12), (1881, 12), (5645, 12), (9472, 12)]
)
def test_frontier_gives_each_size_its_time(nodes: int, limit: int) -> None:
    found = policy.schedule(frontier(nodes=nodes))
    assert (found.partition, found.qos, found.segment_s, found.segments) == ("batch", None, limit * 3600, 1)


@pytest.mark.parametrize(
    ("overrides", "nodes", "path", "said"),
    [
        ([], 9473, "nodes", "bin 1: 5,645 to 9,472 nodes"),
        (["slurm.partition=extended"], 65, "nodes", "64-Node maximum job size"),
        (["slurm.partition=gpu"], 2, "slurm.partition", "frontier has batch, extended, batch with qos debug"),
        (["slurm.qos=urgent"], 2, "slurm.qos", "batch with qos debug"),
        (["slurm={account: a, qos: debug, time_limit: 3h}"], 2, "slurm.time_limit", "job chaining using the"),
        (["slurm={account: a, segment_time: 3h}"], 91, "slurm.segment_time", "bin 5: 1 to 91 nodes"),
        (["slurm.account=null"], 2, "slurm.account", "requires an account"),
        (["slurm={account: a, time_limit: 9m}"], 2, "slurm.signal_before_end", "half of a job's 00:09:00"),
        (["slurm={account: a, time_limit: 30s}"], 2, "slurm.time_limit", "at least a minute"),
    ],
)
def test_refusals(overrides: Sequence[str], nodes: int, path: str, said: str) -> None:
    violation = refused(frontier(*overrides, nodes=nodes))
    assert violation.path == path
    assert said in violation.constraint
    assert violation.fix


def test_a_rule_is_quoted_with_its_source() -> None:
    constraint = refused(frontier(nodes=9473)).constraint
    assert "Frontier user guide" in constraint and "2026-07-22" in constraint


def test_a_long_run_becomes_segments_and_the_last_takes_the_rest() -> None:
    found = policy.schedule(frontier("slurm.time_limit=5h30m"))
    assert found.segments == 3
    assert [found.time_s(n) for n in (1, 2, 3)] == [7200, 7200, 5400]
    shorter = policy.schedule(frontier("slurm={account: a, time_limit: 4h, segment_time: 1h}"))
    assert (shorter.segments, shorter.segment_s) == (4, 3600)


def test_too_many_jobs() -> None:
    spec = frontier("slurm={account: a, qos: debug, time_limit: 1h}")
    queue = policy.schedule(spec).queue
    assert policy.too_many_jobs(spec, queue, 0) is None
    error = policy.too_many_jobs(spec, queue, 1)
    assert error is not None and "limited to one job in any state" in str(error)


def test_lumi_prefers_the_partition_of_large_runs_and_knows_the_small_one() -> None:
    size = ["slurm.account=project_1", "slurm.time_limit=3d"]
    assert policy.schedule(load_run("llama-2-7b-lumi", size).spec).segments == 2
    small = load_run("llama-2-7b-lumi", [*size, "slurm.partition=small-g"]).spec
    assert policy.schedule(small).segments == 1


def test_a_machine_without_a_site_needs_a_time_and_has_no_limits() -> None:
    spec = run_spec(nodes=4)
    assert refused(spec).path == "slurm.time_limit"
    free = spec.model_copy(update={"slurm": spec.slurm.model_copy(update={"time_limit": "99d"})})
    assert policy.schedule(free).segments == 1


@pytest.mark.parametrize("name", ["mi300a", "mi300x", "mi325x", "mi355x"])
def test_a_kind_of_node_is_no_cluster(name: str) -> None:
    kind = load_machine(name)
    spec = run_spec(nodes=4).model_copy(update={"machine": kind})
    violation = refused(spec)
    assert (violation.path, violation.value) == ("machine", name)
    assert f"extends: {name}" in violation.fix
    owned = kind.model_copy(update={"site": kind.site.model_copy(update={"account_required": True})})
    with pytest.raises(SpecError, match="requires an account"):
        policy.schedule(spec.model_copy(update={"machine": owned}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2h", 7200),
        ("1h30m", 5400),
        ("90s", 90),
        ("1d", 86400),
        ("2:00:00", 7200),
        ("1-12:00:00", 129600),
        ("1-12:30", 131400),
    ],
)
def test_durations(text: str, value: int) -> None:
    assert seconds(text) == value
    assert seconds(clock(value)) == value


@pytest.mark.parametrize("text", ["", "2", "2:00", "h", "1h1h", "2 h", "-1h", "1:60:00", "1:00:60", "2h\n"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration|may be"):
        seconds(text)


@pytest.mark.parametrize("name", ["frontier", "lumi-g"])
def test_places_are_those_of_the_node_diagram(name: str) -> None:
    """NUMA domains by device: 3 3 1 1 0 0 2 2, sixteen cores each, the first of every eight reserved."""
    machine = load_machine(name)
    places = machine.site.devices
    assert len(places) == machine.devices_per_node
    assert [place.numa for place in places] == [3, 3, 1, 1, 0, 0, 2, 2]
    for place in places:
        cores = place.core_numbers()
        assert len(cores) == 7 and {core // 16 for core in cores} == {place.numa}
        assert not [core for core in cores if core % 8 == 0]
    assert len({core for place in places for core in place.core_numbers()}) == 56
    assert [place.nic for place in places] == [f"hsn{n // 2}" for n in range(8)]
    assert len({place.pci_bus for place in places}) == 8


@pytest.mark.parametrize(
    ("machine", "nodes", "name"),
    [
        ("frontier", 64, "extended"),
        ("frontier", 65, "batch"),
        ("frontier", 9473, None),
        ("lumi-g", 4, "small-g"),
        ("lumi-g", 1024, "standard-g"),
        ("lumi-g", 1025, "bench"),
        ("workstation", 1, None),
    ],
)
def test_the_queue_of_long_runs(machine: str, nodes: int, name: str | None) -> None:
    """The one that lets a job run longest; never one that forbids chains, as debug does."""
    site = load_machine(machine).site
    assert policy.best_queue(site, nodes) == (None if name is None else (name, site.queues[name]))


def test_a_queue_without_chains_is_not_for_long_runs() -> None:
    site = load_machine("lumi-g").site
    long = site.queues["dev-g"].limits[0].model_copy(update={"max_time": "9d"})
    debug = site.queues["dev-g"].model_copy(update={"limits": [long]})
    found = policy.best_queue(site.model_copy(update={"queues": {**site.queues, "dev-g": debug}}), 8)
    assert found and found[0] == "standard-g"
