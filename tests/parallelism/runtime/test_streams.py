"""The engine on a GPU's streams, played on CPU ranks: no race, the same numbers, few waits of the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import SHARDING_PRESETS
from frontrunner.parallelism.layout import Layout
from support.ranks import run_ranks
from support.specs import saving, sharing
from support.stream_runs import FAULTS, Turn, turns
from support.stream_specs import FOUR, QUANTISED, SPECS, STEPS, small

QUICK = {("three_level", 2, "quantised"), ("hsdp", 1, "float32")}
PRODUCT = [
    pytest.param(
        preset, accumulation, wire, marks=() if (preset, accumulation, wire) in QUICK else pytest.mark.long
    )
    for preset in SHARDING_PRESETS
    for accumulation in (1, 2)
    for wire in ("float32", "quantised")
]
#: What the host waits for in a step: three readings of the clock, the gradient norm and the mean loss.
WAITS = {
    "synchronize in rank_trainer._now": 3,
    "_local_scalar_dense in optimizer._norm": 1,
    "_local_scalar_dense in rank_trainer._mean": 1,
}


def check(spec: RunSpec, folder: Path | None = None, verified: bool = False) -> None:
    """With clocks no race and no more waits than allowed, with two orders of late queues the same numbers."""
    wanted = [Turn(plain=True), Turn(), Turn(seed=1), Turn(seed=2)]
    for rank in run_ranks(spec.world_size, turns, spec, wanted, str(folder) if folder else None):
        plain, *others = rank
        assert [seen.races for seen in others] == [[], [], []]
        assert [seen.numbers for seen in others] == [plain.numbers] * 3
        if folder is None and not verified:
            assert others[0].host_waits == {place: STEPS * count for place, count in WAITS.items()}


@pytest.mark.parametrize(("preset", "accumulation", "wire"), PRODUCT)
def test_presets_on_streams(preset: Any, accumulation: int, wire: str) -> None:
    wires = QUANTISED if wire == "quantised" else None
    check(small(FOUR, accumulation, sharding=preset, wire=wires))


@pytest.mark.parametrize(
    "name", ["tensor 2", "pipeline 2", pytest.param("eight ranks", marks=pytest.mark.long)]
)
def test_layouts_on_streams(name: str) -> None:
    check(SPECS[name])


@pytest.mark.parametrize("name", ["experts", "experts of nodes"])
def test_experts_on_streams(name: str) -> None:
    """The host waits for the sizes of each hop's messages and of the experts' products."""
    spec = SPECS[name]
    hops = len(Layout.from_spec(spec).expert_hops(0))
    forwards = STEPS * 2 * 2  # micro-batches and layers
    for rank in run_ranks(
        spec.world_size, turns, spec, [Turn(plain=True), Turn(), Turn(seed=1), Turn(seed=2)], None
    ):
        plain, *others = rank
        assert [seen.races for seen in others] == [[], [], []]
        assert [seen.numbers for seen in others] == [plain.numbers] * 3
        assert others[0].host_waits == {place: STEPS * count for place, count in WAITS.items()} | {
            "tolist in dispatch._counts": forwards * hops,
            "tolist in layer.forward": forwards,
            "to in schedule._forward": 1,  # the rotary frequencies, once
        }


def test_verified_steps_on_streams() -> None:
    check(SPECS["verified"], verified=True)


@pytest.mark.parametrize("name", ["verified", "room"])
def test_shared_communicators_on_streams(name: str) -> None:
    check(sharing(SPECS[name]), verified=name == "verified")


def test_checkpoints_in_the_background_on_streams(tmp_path: Path) -> None:
    check(saving(small({"devices": 2}, sharding="zero1"), background=True), tmp_path)


#: Where each fault of FAULTS shows.
SHOWS_IN = {
    "the first residual is freed": SPECS["quantised"],
    "masters are saved while they travel": small({"devices": 2}, sharding="zero1"),
    "checksums of masters while they travel": small({"devices": 2}, sharding="zero1", verify=10),
    "positions are copied in each forward": small({"devices": 2}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_mended_is_seen(fault: str, tmp_path: Path) -> None:
    folder = str(tmp_path) if "saved" in fault else None
    spec = SHOWS_IN[fault]
    for (seen,) in run_ranks(spec.world_size, turns, spec, [Turn(fault=fault)], folder):
        if fault.startswith("positions"):
            assert seen.host_waits.keys() - WAITS.keys() == {"to in schedule.run"}
        else:
            assert seen.races
