"""Logs that others published of 175-billion-parameter runs, read right."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from support.logs import REAL, REAL_REASON

pytestmark = pytest.mark.skipif(not REAL.exists(), reason=REAL_REASON)

#: Nodes: data-parallel ranks, steps, hardware TFLOP/s per device, seconds per step.
LUMI = {16: (2, 4, 67.0, 346.7), 64: (8, 16, 59.6, 97.5), 128: (16, 28, 52.6, 55.2)}
#: Nodes: by stage, MiB that are allocated and the highest of them.
LUMI_MEMORY = {
    16: {0: (38351, 48803), 1: (37099, 45178), 6: (37096, 40067), 7: (30723, 32929)},
    64: {0: (26045, 36495), 7: (21065, 23271)},
    128: {0: (23998, 34446), 7: (19454, 21660)},
}


@cache
def answer() -> dict[str, Any]:
    return analyze(read([REAL])).answer


def run(name: str) -> dict[str, Any]:
    return next(run for run in answer()["runs"] if run["id"] == name)


@pytest.mark.parametrize("nodes", LUMI)
def test_lumi_steps_layout_and_speed(nodes: int) -> None:
    data, steps, teraflops, seconds = LUMI[nodes]
    found = run(f"lumi-175b-{nodes}-nodes")
    assert (found["machine"], found["nodes"], found["devices"]) == ("lumi-g", nodes, nodes * 8)
    layout = {
        "tensor": 8,
        "pipeline": 8,
        "data": data,
        "micro_batch_size": 2,
        "grad_accum_steps": 512 // data,
    }
    assert {key: found["layout"][key] for key in layout} == layout
    assert (found["layout"]["recompute"], found["layout"]["sequence_parallel"]) == ("full", False)
    assert (found["steps"], found["global_batch_size"], found["seq_len"]) == (steps, 1024, 2048)
    assert (found["precision"], found["lost_lines"]) == ("bfloat16", 0)
    assert found["step_time_s"] == pytest.approx(seconds, abs=0.05)
    assert found["hardware_flops_per_s_per_device"] / 1e12 == pytest.approx(teraflops, abs=0.05)
    assert found["warnings"] == []


@pytest.mark.parametrize("nodes", LUMI)
def test_lumi_model_and_hardware_flops_are_told_apart(nodes: int) -> None:
    """The log prints four forward passes; the model needs three. The output layer is not
    computed again."""
    found = run(f"lumi-175b-{nodes}-nodes")
    printed, hardware = (
        found["printed_flops_per_s_per_device"],
        found["hardware_flops_per_s_per_device"],
    )
    assert found["printed_flop_convention"] == "hardware"
    assert printed == pytest.approx(hardware, rel=1e-3)
    assert found["model_flops_per_s_per_device"] / hardware == pytest.approx(0.7508, abs=1e-4)
    assert found["mfu"] == pytest.approx(found["model_flops_per_s_per_device"] / 191.5e12)


@pytest.mark.parametrize("nodes", LUMI)
def test_lumi_memory_by_stage(nodes: int) -> None:
    stages = {each["stage"]: each for each in run(f"lumi-175b-{nodes}-nodes")["memory_by_stage"]}
    assert sorted(stages) == list(range(8))
    for stage, (allocated, peak) in LUMI_MEMORY[nodes].items():
        assert stages[stage]["allocated_bytes"] / 2**20 == pytest.approx(allocated, abs=2)
        assert stages[stage]["peak_bytes"] / 2**20 == pytest.approx(peak, abs=2)


def test_lumi_communication_is_of_one_rank() -> None:
    found = run("lumi-175b-128-nodes")["communication"]
    operations = {each["operation"]: each for each in found["operations"]}
    assert (operations["send"]["calls_per_step"], operations["all_reduce"]["calls_per_step"]) == (64, 5)
    assert operations["all_reduce"]["bytes_per_step"] == pytest.approx(
        (2.61 + 2.73 + 0.3418) * 2**30, rel=2e-3
    )
    assert found["share"] == pytest.approx(0.19, abs=0.01)


def test_lumi_strong_scaling() -> None:
    (group,) = answer()["scaling"]
    assert (group["kind"], group["global_batch_size"], group["base_devices"]) == ("strong", 1024, 128)
    points = group["points"]
    assert [point["devices"] for point in points] == [128, 512, 1024]
    expected = [1, 346.67 / 97.53, 346.67 / 55.18]
    assert [point["speedup"] for point in points] == pytest.approx(expected)
    assert [point["efficiency"] for point in points] == pytest.approx([1, 0.8886, 0.7853], abs=1e-4)
    assert [point["serial_fraction"] for point in points[1:]] == pytest.approx([0.0418, 0.0391], abs=1e-4)
    low, high = points[2]["efficiency_interval"]
    assert 0.78 < low < 0.7853 < high < 0.79
    assert group["fit"]["largest_error_pct"] < 1
    assert [each["devices"] for each in group["predictions"]] == [2048, 4096]


@pytest.mark.parametrize("nodes", LUMI)
def test_lumi_is_what_the_planner_says(nodes: int) -> None:
    off = run(f"lumi-175b-{nodes}-nodes")["comparison"]
    assert abs(off["step_time_error_pct"]) < 5
    assert abs(off["memory_error_pct"]) < 5


def test_crusher_cannot_be_true() -> None:
    found = run("crusher-175b-16-nodes")
    assert (found["machine"], found["nodes"], found["steps"], found["global_batch_size"]) == (
        "frontier",
        16,
        5,
        1280,
    )
    layout = {
        "tensor": 4,
        "pipeline": 16,
        "data": 2,
        "micro_batch_size": 1,
        "sharding": "zero1",
        "recompute": "full",
    }
    assert {key: found["layout"][key] for key in layout} == layout
    assert found["steady"]["outliers"] == 1, "the step that validation is counted in"
    plausible, micro_batches, overflow, loss = found["warnings"]
    assert "it is 78.6 % of the peak" in plausible
    assert "120 TFLOP/s" in plausible
    assert "ran 160 micro-batches a step but the log counts 640" in micro_batches
    assert "37.6 TFLOP/s, not 151" in micro_batches
    assert "every step overflowed: all 5" in overflow
    assert "never moves" in loss
    assert found["corrected"]["factor"] == 0.25
    assert not found["in_scaling"]
    assert found["memory_by_stage"][0]["peak_bytes"] / 2**20 == pytest.approx(33902, abs=1)
    assert found["memory_by_stage"][15]["peak_bytes"] / 2**20 == pytest.approx(29138, abs=1)
