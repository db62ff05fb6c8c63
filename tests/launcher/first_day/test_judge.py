"""What the figures of a first day mean: made-up ones of devices, and what may be missing or wrong."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.configs.load import load_machine
from frontrunner.launcher.display.screen import Screen
from frontrunner.launcher.first_day import runs
from frontrunner.launcher.first_day.found import Day, Found
from frontrunner.launcher.first_day.judge import judge
from frontrunner.launcher.first_day.machine import measured_machine
from frontrunner.launcher.first_day.view import parts, said

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="a day without DeepSpeed has fewer parts"
)
#: One rank's figures of each part, made by hand for eight devices of an MI250X node.
RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("mi250x.json").read_text())
PLANNED = runs.plan(None, ["machine=frontier"], as_job=True)
#: From the device's data sheet, as the machine file has it.
PEAK = 191.5e12


def day(**changed: Found) -> Day:
    """All eight ranks found the same, but for some parts."""
    trained = ("native", "fsdp", "deepspeed")
    found = {
        name: Found((figures,) * (1 if name in trained else 8), seconds=10.0)
        for name, figures in RECORDED.items()
    }
    return Day(found | changed, PLANNED.runs, PLANNED.notes)


def with_figures(name: str, **figures: Any) -> Found:
    return Found((RECORDED[name] | figures,) * 8, seconds=10.0)


def verdicts(answer: dict[str, Any]) -> dict[str, str]:
    return {row["part"]: said(row) for row in answer["parts"]}


def test_each_part_has_a_verdict() -> None:
    found = verdicts(judge(day()))
    assert list(found) == [*RECORDED, "memory"]
    assert [found[name] for name in ("kernels", "streams", "plain", "fsdp", "deepspeed")] == ["ok"] * 5
    assert found["native"].startswith("ok (+")


@pytest.mark.parametrize(("factor", "expected"), [(1.0, "ok (+0.00 % of the plan)"), (0.5, "+100 %")])
def test_rates_are_held_against_the_machine_file(factor: float, expected: str) -> None:
    """At the planner's own times there is no difference, at half of the rate it takes twice as long."""
    planned = {row["product"]: row["planned_s"] for row in judge(day())["products"]}
    rows = [
        row | {"flops_per_s": factor * 2 * row["m"] * row["n"] * row["k"] / planned[row["product"]]}
        for row in RECORDED["rates"]["products"]
    ]
    found = verdicts(judge(day(rates=with_figures("rates", products=rows))))["rates"]
    assert expected in found and found.startswith("ok" if factor == 1.0 else "differs from the plan by")


def test_a_slow_device_does_not_hide_in_a_mean() -> None:
    """The figures are medians: one device at a tenth changes nothing."""
    slow = {"products": [row | {"flops_per_s": 1e12} for row in RECORDED["rates"]["products"]]}
    ranks = (RECORDED["rates"] | slow, *(RECORDED["rates"],) * 7)
    assert judge(day(rates=Found(ranks)))["products"] == judge(day())["products"]


def test_steps_have_tokens_and_mfu() -> None:
    """6 N FLOPs a token (Kaplan et al. 2020) are a lower bound: attention is not among them."""
    answer = judge(day())
    native = answer["steps"][0]
    run = PLANNED.spec.training
    tokens = run.global_batch_size * run.seq_len / 8 / 0.31
    assert native["tokens_per_s_per_device"] == pytest.approx(tokens)
    assert native["mfu"] == pytest.approx(native["model_flops_per_s_per_device"] / PEAK)
    assert 1.0 < native["model_flops_per_s_per_device"] / (6 * 1.40e9 * tokens) < 1.3
    assert [row["engine"] for row in answer["steps"]] == ["native", "plain", "fsdp", "deepspeed"]
    assert [row["planned_step_time_s"] is None for row in answer["steps"]] == [False, True, True, True]


def test_a_slow_step_differs_by_what_the_interval_does_not_hold() -> None:
    (planned,) = (row["planned_step_time_s"] for row in judge(day())["steps"] if row["engine"] == "native")
    slow = Found((RECORDED["native"] | {"step_time_s": 3 * planned},))
    assert verdicts(judge(day(native=slow)))["native"] == "differs from the plan by +200 %"


def test_memory_is_of_tensors() -> None:
    planned = judge(day())["memory"]["planned_bytes"]
    same = Found((RECORDED["native"] | {"peak_memory_bytes": planned},))
    more = Found((RECORDED["native"] | {"peak_memory_bytes": 1.5 * planned},))
    assert verdicts(judge(day(native=same)))["memory"] == "ok (+0.00 % of the plan)"
    assert verdicts(judge(day(native=more)))["memory"] == "differs from the plan by +50.0 %"
    on_cpu = Found((RECORDED["native"] | {"device": "cpu"},))
    assert verdicts(judge(day(native=on_cpu)))["memory"].startswith("not applicable: on CPU")


def test_collectives_are_compared_at_the_largest_size() -> None:
    """All at twice the planner's time, but for small ones, which latency decides."""
    planned = [row["planned_s"] for row in judge(day())["collectives"]]
    rows = [
        row | {"seconds": seconds * (2 if row["bytes"] == 2**28 else 50)}
        for row, seconds in zip(RECORDED["collectives"]["collectives"], planned, strict=True)
    ]
    answer = judge(day(collectives=with_figures("collectives", collectives=rows)))
    assert verdicts(answer)["collectives"] == "differs from the plan by +100 %"
    assert {(row["stride"], row["ranks"]): row["level"] for row in answer["collectives"]} == {
        (1, 8): "node",
        (1, 2): "package",
        (2, 4): "node",
    }


def test_kernels_that_differ_from_torch_fail() -> None:
    wrong = ["encoded int4 of 255 elements of float16", "decoded int4 of 255 elements of float16"]
    ranks = (RECORDED["kernels"],) * 7 + (RECORDED["kernels"] | {"wrong": wrong},)
    said_of = verdicts(judge(day(kernels=Found(ranks))))["kernels"]
    assert said_of == "failed: differs from torch: encoded int4 of 255 elements of float16, and 1 more"


@pytest.mark.parametrize("name", RECORDED)
def test_a_part_that_fails_hides_no_other(name: str) -> None:
    before = verdicts(judge(day()))
    failed = Found(failure="rank 3: no end within 60 s, in a barrier", seconds=60.0)
    after = verdicts(judge(day(**{name: failed})))
    assert after.pop(name) == "failed: rank 3: no end within 60 s, in a barrier"
    if name == "native":
        assert after.pop("memory") == "failed: there was no step"
    assert after == {part: before[part] for part in after}


def test_missing_peers_are_named() -> None:
    answer = judge(day(deepspeed=Found(why_not="deepspeed is not installed")))
    assert verdicts(answer)["deepspeed"] == "not applicable: deepspeed is not installed"
    assert [row["engine"] for row in answer["steps"]] == ["native", "plain", "fsdp"]


def test_nothing_but_failures_is_still_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    broken = day(**{name: Found(failure="rank 0: torch sees no GPU here") for name in RECORDED})
    answer = judge(broken)
    Screen().lines(parts(answer | {"outputs": []}))
    assert capsys.readouterr().out.count("failed: rank 0: torch sees no GPU here") == len(RECORDED)
    assert measured_machine(broken, answer, "here") is None


def test_without_rates_there_is_no_difference() -> None:
    unknown = PLANNED.spec.machine.model_copy(update={"software": {}})
    bare = {name: run.model_copy(update={"machine": unknown}) for name, run in PLANNED.runs.items()}
    answer = judge(replace(day(), runs=bare))
    found = verdicts(answer)
    assert found["native"] == found["rates"] == "ok: the machine file has no rates to compare with"
    assert answer["steps"][0]["planned_step_time_s"] is None


def test_the_machine_file_has_what_was_measured(tmp_path: Path) -> None:
    """Loaded as any other; the planner then says the measured step time, since it is fitted to it."""
    kept = measured_machine(day(), judge(day()), "runs/first-day-1")
    assert kept is not None
    text, at_bounds = kept
    (tmp_path / "new.yaml").write_text(text)
    machine = load_machine(str(tmp_path / "new.yaml"))
    software = machine.software[max(machine.software)]
    measured = {row["size"]: row["flops_per_s"] for row in RECORDED["rates"]["squares"]}
    assert {point.size: point.flops_per_s for point in software.gemm} == measured
    assert software.attention_flops_per_s == 38e12  # heads of 88 over the whole sequence
    assert software.memory_efficiency == pytest.approx(1.31e12 / 1638.4e9)
    # By hand: 2^28 bytes, of which a rank sends all but its share.
    gathers = {row["ranks"]: row for row in RECORDED["collectives"]["collectives"] if row["bytes"] == 2**28}
    assert gathers.keys() == {8, 2, 4} and at_bounds == []
    assert software.rings.package == pytest.approx(2**28 / 2 / 0.9737e-3, rel=1e-2)
    assert software.rings.node == pytest.approx(2**28 * 7 / 8 / 6.816e-3, rel=1e-2)
    before = load_machine("frontier")
    assert software.rings.across_nodes == before.software[max(before.software)].rings.across_nodes
    assert machine.site == before.site
    planned = PLANNED.spec.model_copy(update={"machine": machine})
    again = judge(replace(day(), runs=dict(PLANNED.runs) | {"native": planned}))
    assert math.isclose(again["steps"][0]["planned_step_time_s"], 0.31, rel_tol=1e-3)


def test_a_machine_that_is_no_preset_is_written_whole(tmp_path: Path) -> None:
    """Its file may be gone later; a bandwidth that was unknown is the measured one."""
    device = PLANNED.spec.machine.device.model_copy(update={"memory_bandwidth_bytes_per_s": None})
    bare = {"name": "new", "device": device, "software": {}, "sources": {}}
    own = PLANNED.spec.machine.model_copy(update=bare)
    mine = {name: run.model_copy(update={"machine": own}) for name, run in PLANNED.runs.items()}
    changed = replace(day(), runs=mine)
    kept = measured_machine(changed, judge(changed), "here")
    assert kept is not None
    assert "extends" not in yaml.safe_load(kept[0])
    (tmp_path / "file.yaml").write_text(kept[0])
    machine = load_machine(str(tmp_path / "file.yaml"))
    assert machine.name == "new" and machine.device.memory_bandwidth_bytes_per_s == 1.31e12
    (software,) = machine.software.values()
    assert software.memory_efficiency == 1.0
    assert software.rings.point_to_point == own.links.network.bandwidth_bytes_per_s
