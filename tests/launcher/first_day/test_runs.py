"""Which runs a first day measures."""

from __future__ import annotations

import importlib.util

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.first_day import runs
from frontrunner.launcher.first_day.parts import PARTS

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="a day without DeepSpeed has fewer parts"
)


def why_not(day: runs.Day) -> dict[str, str]:
    return {part.name: part.why_not for part in day.parts if part.why_not}


def test_all_parts_end_within_ten_minutes() -> None:
    assert sum(limit for _, limit in PARTS.values()) < 600


@needs_deepspeed
@pytest.mark.parametrize("packages", [1, 4])
def test_every_engine_takes_the_same_steps(packages: int) -> None:
    """On a device alone too, where nothing can be sharded."""
    machine = [
        "machine=frontier",
        f"machine.packages_per_node={packages}",
        f"machine.devices_per_package={2 if packages > 1 else 1}",
    ]
    day = runs.plan(None, machine, as_job=True)
    assert {run.nodes for run in day.runs.values()} == {1} and why_not(day) == {}
    steps = [day.runs[name] for name in ("native", "plain", "fsdp", "deepspeed")]
    assert {run.model.name for run in steps} == {"gpt-1.4b"}
    assert len({(run.training.global_batch_size, run.training.seq_len) for run in steps}) == 1
    assert [run.engine for run in steps] == ["native", "native", "fsdp", "deepspeed"]
    assert all(run.data == "synthetic" and not run.checkpoint.at_end for run in day.runs.values())


@needs_deepspeed
def test_a_model_that_does_not_fit_is_replaced_and_named() -> None:
    """Its products are measured all the same; the peers have no float16."""
    day = runs.plan("gpt-175b-frontier", [], as_job=True)
    assert day.notes == ("model: gpt-175b does not fit on one node, so the steps are gpt-1.4b's",)
    assert day.spec.model.name == "gpt-1.4b" and why_not(day) == {}
    rates = day.runs["rates"]
    assert (rates.model.name, rates.layout.tensor) == ("gpt-175b", 4)


def test_a_layout_that_does_not_fit_is_replaced_and_named() -> None:
    """13e9 parameters with all state on each device are 218 GB; sharded they are a few."""
    keys = ["model=llama-2-13b", "layout={tensor: 1, sequence_parallel: false, sharding: ddp}"]
    day = runs.plan("llama-2-7b-lumi", keys, as_job=True)
    (note,) = day.notes
    assert note.startswith("layout: llama-2-7b-lumi's needs") and "which has 64.0 GiB" in note
    assert day.spec.model.name == "llama-2-13b"
    assert why_not(day)["plain"].startswith("needs ")


def test_engines_say_why_they_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    day = runs.plan("gpt-22b-frontier", [], as_job=True)
    found = why_not(day)
    assert found["deepspeed"] == "deepspeed is not installed"
    assert "float16" not in found["plain"] and "float32 and bfloat16" in found["fsdp"]


def test_a_device_too_small_for_any_model() -> None:
    with pytest.raises(SpecError, match="too little memory for a step of gpt-tiny"):
        runs.plan(None, ["machine=frontier", "machine.device.memory_bytes=1000000"], as_job=True)


@pytest.mark.parametrize(
    ("seen", "devices", "model"),
    [
        ({"count": 0}, None, "gpt-tiny"),
        ({"count": 4, "name": "AMD Instinct MI300A", "memory_bytes": 128 * 2**30}, 4, "gpt-1.4b"),
        ({"count": 1, "name": "small", "memory_bytes": 2 * 2**30}, 1, "gpt-tiny"),
    ],
)
def test_without_a_run_the_machine_is_what_torch_sees(
    monkeypatch: pytest.MonkeyPatch, seen: dict[str, object], devices: int | None, model: str
) -> None:
    monkeypatch.setattr(runs, "_seen", lambda: seen)
    day = runs.plan(None, [], as_job=False)
    assert day.spec.model.name == model and day.spec.machine.name == "this-machine"
    if devices is None:
        assert 2 <= day.spec.world_size <= 4 and day.spec.training.precision == "float32"
    else:
        assert day.spec.world_size == devices and day.spec.machine.device.name == seen["name"]
        assert day.spec.training.precision == "bfloat16"


@needs_deepspeed
def test_steps_of_a_mixture_are_those_of_a_dense_model() -> None:
    """The plain loop and the other engines have no experts."""
    day = runs.plan("moe-quickstart", [], as_job=True)
    (note,) = day.notes
    assert note.startswith(
        "model: moe-tiny has experts, which only our own engine trains, so the steps are gpt-"
    )
    assert {day.runs[name].model.experts for name in ("native", "plain", "fsdp", "deepspeed")} == {None}
