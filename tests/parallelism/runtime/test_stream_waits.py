"""Each wait of the engine is needed: without it there is a race, or more memory is held.

The table below is complete: a wait that is not in it fails a test.
"""

from __future__ import annotations

from functools import cache

import pytest

pytest.importorskip("torch")

from support.ranks import run_ranks
from support.stream_runs import Seen, Turn, turns
from support.stream_specs import SPECS
from support.virtual_streams import Site

#: Between them they have all waits.
RUNS = ("quantised", "verified", "room")
#: Without one of these there is a race.
RACES = {
    Site("wait_stream", "weights", "submit", "start"),
    Site("wait_stream", "update", "submit", "update"),
    Site("wait_stream", "gradients", "submit", "within_block"),
    Site("wait_stream", "reduction", "submit", "_block_job"),
    Site("wait_event", "weights", "wait", "finish"),
    Site("wait_event", "update", "wait", "_settle"),
    Site("wait_stream", "update", "join", "join"),
    Site("wait_stream", "reduction", "join", "join"),
    Site("borrow", "gradients", "borrow", "_encode_whole"),
    Site("work", "weights", "submit", "start"),
    Site("work", "update", "submit", "update"),
    Site("work", "gradients", "submit", "within_block"),
    Site("work", "reduction", "submit", "_block_job"),
}
#: Without one of these more units are on their way, and hold memory.
BOUNDS = {
    Site("wait_event", "gradients", "wait", "within_block"),
    Site("wait_event", "reduction", "wait", "_make_room"),
}
#: On a GPU the wait beside it includes these. On CPU they do the work of the jobs.
INCLUDED = {
    # Every unit's job on the network starts after its job in the block, and is waited for next.
    Site("wait_event", "gradients", "wait", "_make_room"),
    Site("wait_stream", "gradients", "join", "join"),
    # Gathered units are awaited before they are freed, and none is held between steps.
    Site("wait_stream", "weights", "join", "join"),
}


@cache
def without(name: str) -> tuple[list[Seen], dict[Site, list[Seen]]]:
    """What the ranks of a run have with all waits, and without each of them."""
    spec = SPECS[name]
    whole = [seen for (seen,) in run_ranks(spec.world_size, turns, spec, [Turn()])]
    sites = sorted(set().union(*(seen.sites for seen in whole)))
    ranks = run_ranks(spec.world_size, turns, spec, [Turn(drop=site) for site in sites], timeout=280)
    return whole, dict(zip(sites, map(list, zip(*ranks, strict=True)), strict=True))


def races_without(site: Site) -> bool:
    return any(seen.races for name in RUNS for seen in without(name)[1].get(site, []))


@pytest.mark.long
def test_the_table_has_all_waits() -> None:
    found = set().union(*(without(name)[1] for name in RUNS))
    assert found == RACES | BOUNDS | INCLUDED
    assert not any(seen.races for name in RUNS for seen in without(name)[0])


@pytest.mark.long
@pytest.mark.parametrize("site", sorted(RACES), ids="-".join)
def test_without_this_wait_there_is_a_race(site: Site) -> None:
    assert races_without(site)


@pytest.mark.long
@pytest.mark.parametrize("site", sorted(BOUNDS), ids="-".join)
def test_without_this_wait_more_is_held(site: Site) -> None:
    assert not races_without(site)
    more = []
    for name in RUNS:
        whole, dropped = without(name)
        pairs = zip(whole, dropped.get(site, whole), strict=True)
        more += [found.ahead[site.lane] > usual.ahead[site.lane] for usual, found in pairs]
    assert any(more)


@pytest.mark.long
@pytest.mark.parametrize("site", sorted(INCLUDED), ids="-".join)
def test_another_wait_includes_this_one(site: Site) -> None:
    assert not races_without(site)
    for name in RUNS:
        whole, dropped = without(name)
        for usual, found in zip(whole, dropped.get(site, whole), strict=True):
            assert found.ahead == usual.ahead


def test_both_ways_see_a_missing_wait() -> None:
    spec, site = SPECS["quantised"], Site("wait_event", "weights", "wait", "finish")
    wanted = [Turn(plain=True), Turn(drop=site), Turn(seed=1, drop=site)]
    for plain, clocks, late in run_ranks(spec.world_size, turns, spec, wanted):
        assert clocks.races and clocks.numbers == plain.numbers
        assert late.numbers != plain.numbers
