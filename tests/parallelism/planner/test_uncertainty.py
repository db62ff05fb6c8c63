"""Intervals of predicted speeds: from which residuals, how wide, and how often they hold."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from frontrunner.configs.load import load_machine, load_run
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.published import read
from frontrunner.parallelism.planner.published_workload import prepare
from frontrunner.parallelism.planner.uncertainty import (
    JUDGED,
    RELATIVE_INTERVAL_PCT,
    RELATIVE_MEDIAN_PCT,
    Judged,
    Request,
    coverage,
    distance,
    half_width_pct,
    interval_pct,
    pairs,
    relative_interval_pct,
)
from frontrunner.parallelism.planner.validate import MACHINES, source_of, validate

ROWS = Path(str(files("frontrunner.configs.published") / "mi250x.yaml"))


def test_the_residuals_are_those_that_validate_finds() -> None:
    rows = {row.id: row for row in read(ROWS)}
    found = validate(list(rows.values()), load_machine).speed
    assert len(found) == len(JUDGED)
    for one, kept in zip(found, JUDGED, strict=True):
        row = rows[one.id]
        workload, _ = prepare(row, load_machine(MACHINES[row.machine]))
        assert source_of(row).endswith(kept.source)
        gated = workload.model.activation == "swiglu"
        assert kept[1:5] == (one.devices, row.seq_len, one.profile, gated)
        assert kept.shape == (row.model.layers, row.model.hidden)
        assert one.left_out_error_pct is not None
        assert kept.log_error == pytest.approx(math.log1p(one.left_out_error_pct / 100), abs=0.001)


def test_how_often_the_interval_of_the_other_sources_holds() -> None:
    """21 of 25; what it misses are four of FORGE's six rows, the only ones of GPT-NeoX but one."""
    assert coverage() == (21, 25)


@pytest.mark.xfail(reason="not reached: 84 %", strict=True)
def test_ninety_percent_intervals_hold_85_to_95_percent() -> None:
    held, judged = coverage()
    assert 0.85 <= held / judged <= 0.95


def test_further_requests_have_wider_intervals() -> None:
    near = Request(512, 2048, "gpt-neox-zero1", False)
    assert distance(near, JUDGED) == 0
    widths = [half_width_pct(near._replace(devices=devices), JUDGED) for devices in (512, 2048, 32768)]
    widths.append(half_width_pct(Request(32768, 2048, "native", False), JUDGED))
    widths.append(half_width_pct(Request(32768, 131072, "native", False), JUDGED))
    assert widths == sorted(set(widths))


def test_the_ratio_of_two_layouts_is_off_less_than_one_speed() -> None:
    """The 90 % quantile of twelve pairs is their largest. The median decides what simplicity may cost."""
    found = sorted(pairs(JUDGED))
    assert len(found) == 12 and found[-1] == pytest.approx(0.176, abs=0.001)
    assert relative_interval_pct(JUDGED) == RELATIVE_INTERVAL_PCT == pytest.approx(19.2, abs=0.1)
    assert pytest.approx(6.1, abs=0.1) == RELATIVE_MEDIAN_PCT
    assert half_width_pct(Request(64, 2048, "native", False), JUDGED) > RELATIVE_INTERVAL_PCT


def test_only_runs_of_one_source_engine_and_model_are_pairs() -> None:
    one = Judged("one", 8, 2048, "native", True, 0.1, (2, 64))
    near = one._replace(devices=16, log_error=0.15)
    others = [near._replace(source="two"), near._replace(engine="fsdp2"), near._replace(shape=(2, 128))]
    assert pairs([one, near, *others]) == pytest.approx([0.05])


def test_residuals_of_its_own_source_do_not_bring_a_run_closer() -> None:
    runs = [Judged("one", 8, 2048, "native", True, 0.1, (1, 1))] * 20
    runs += [Judged("two", 8 * 16, 2048, "native", True, 0.1, (1, 1))]
    # Each lies at distance 1 from the other source, so a residual counts half.
    assert half_width_pct(Request(8, 2048, "native", True), runs) == pytest.approx(100 * math.expm1(0.05))


def test_no_interval_without_a_speed() -> None:
    workload = Workload.of(load_run("gpt-22b-frontier").spec)
    assert interval_pct(workload, 128)
    assert interval_pct(replace(workload, software=None), 128) is None
