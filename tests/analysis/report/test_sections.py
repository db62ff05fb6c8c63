"""What the page says first: speed, distance from the plan, where time goes, what to change; and losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis.analyze import Analysis, analyze
from frontrunner.analysis.read import read
from frontrunner.analysis.report import changes, losses, summary
from frontrunner.analysis.report.table import Section
from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.advise import advise
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import Estimate, estimate
from support import logs
from support.specs import run_spec


def planned(spec: RunSpec) -> Estimate:
    return estimate(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))


@pytest.fixture(scope="module")
def frontier() -> RunSpec:
    return load_run("gpt-22b-frontier").spec


@pytest.fixture(scope="module")
def slow(frontier: RunSpec, tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """One run on Frontier that takes a quarter longer than planned."""
    assert (time := planned(frontier).time) is not None
    seconds = 1.25 * float(time.total[0])
    folder = tmp_path_factory.mktemp("slow")
    run = logs.write_run(folder / "slow", [seconds] * 20, frontier, peak_memory_bytes=32 * 2**30)
    with (run / "records.jsonl").open("a") as file:
        for step, loss in ((0, 9.5), (10, 3.21), (10, 3.456)):
            file.write(logs.line({"kind": "validation", "step": step, "loss": loss}))
    return analyze(read([folder]))


def tiles(section: Section) -> dict[str, tuple[str, str]]:
    return {tile.name: (tile.value, tile.note) for tile in section.tiles}


def test_one_run_opens_with_its_speed_and_its_plan(slow: Analysis) -> None:
    shown = tiles(summary.section(slow.answer))
    (run,) = slow.answer["runs"]
    assert shown["step time against plan"][0] == "+25.0 %"
    assert shown["peak memory of a device"] == ("32.0 GiB", "50.0 % of 64.0 GiB")
    assert shown["validation loss"] == ("3.46", "after step 10")
    assert shown["MFU"][0] == f"{100 * run['mfu']:.1f} %"
    assert shown["MFU"][1].endswith("of a peak of 192 TFLOP/s")
    assert shown["step time"][1] == "median of 19 steps"
    assert run["comparison"]["step_time_error_pct"] == pytest.approx(-20)


def test_what_is_unknown_has_a_reason(tmp_path: Path) -> None:
    logs.write_run(tmp_path / "one", [2.0, 1.0, 1.0], run_spec(devices=2))
    shown = tiles(summary.section(analyze(read([tmp_path])).answer))
    assert shown["step time against plan"][0] == "–"
    assert shown["step time against plan"][1].startswith("no planned time: no rates are known for")
    assert shown["model FLOPs of a device"][1] == "no MFU: the peak of the device is not known"


def test_several_runs_are_ranked_and_doubtful_ones_come_last(tmp_path: Path) -> None:
    for name, seconds in (("slow", 2.0), ("fast", 1.0), ("wrong", 0.5)):
        logs.write_run(tmp_path / name, [seconds] * 5, run_spec(devices=2))
    answer = analyze(read([tmp_path])).answer
    next(run for run in answer["runs"] if run["id"] == "wrong")["flags"] = ["implausible"]
    section = summary.section(answer)
    (ranking,) = section.tables
    assert [row[0].text for row in ranking.rows] == ["fast", "slow", "wrong"]
    (speed,) = section.charts
    assert list(speed.series[0].x) == ["fast", "slow"]
    shown = tiles(section)
    assert shown["step time"][0] == "1.00 s to 2.00 s"
    assert shown["fastest device"][1] == "fast, 2.00 times the slowest"
    assert section.notes[1].startswith("1 of 3 runs cannot be as fast")


def test_the_largest_shares_of_a_step_come_first(slow: Analysis) -> None:
    section = changes.breakdown(slow)
    assert section is not None
    measured, told = section.tables[0].rows
    assert [cell.text for cell in measured[:5]] == [
        "slow",
        "measured",
        "computing and bubble 70.0 %",
        "optimizer 20.0 %",
        "communication not hidden 10.0 %",
    ]
    assert told[1].text == "planned" and told[2].text.startswith("computing ")


def test_the_planner_s_changes_are_those_of_advise(slow: Analysis, frontier: RunSpec) -> None:
    expected = advise(frontier, planned(frontier))
    assert expected, "there is something to advise"
    (shown,) = changes.changes(slow).tables
    assert [row[1].text for row in shown.rows] == [advice.change for advice in expected]
    assert [row[2].text[0] for row in shown.rows] == ["+"] * len(expected)
    assert shown.rows[0][0].text == "slow" and shown.rows[0][2].key == "runs.0.predicted.changes.0.gain"


def test_without_advice_there_is_a_reason_and_equal_warnings_are_one(tmp_path: Path) -> None:
    for name in "abcde":
        logs.write_run(tmp_path / name, [1.0] * 5, run_spec(devices=2), loss=3.0)
    found = analyze(read([tmp_path]))
    section = changes.changes(found)
    assert not section.tables
    reasons, warnings = section.remarks
    assert [text.partition(":")[0] for _, text in reasons.lines] == ["The planner advises nothing"]
    assert ("a, b, c and 2 more", "the loss never moves: it stays within 0.00 of 3.00 for 5 steps") in (
        warnings.lines
    )


def losses_of(found: Analysis) -> dict[str, Any]:
    (chart,) = losses.losses(found)
    return {series.name: series for series in chart.series}


def test_validation_is_drawn_from_step_0_and_repeated_steps_once(slow: Analysis) -> None:
    series = losses_of(slow)["validation"]
    assert (list(series.x), list(series.y)) == ([0, 10], [9.5, 3.456])
    assert series.color != losses_of(slow)["training"].color


def test_training_loss_is_a_mean_over_the_raw_one(slow: Analysis) -> None:
    drawn = losses_of(slow)
    raw, mean = drawn["training, each step"], drawn["training"]
    assert raw.faint and not raw.in_legend and raw.color == mean.color
    assert list(raw.y) == pytest.approx([5 - step / 100 for step in range(1, 21)])
    assert mean.y[0] == pytest.approx(4.985), "of steps 1 and 2"
    assert mean.y[9] == pytest.approx(4.9), "of steps 9, 10 and 11"


@pytest.mark.parametrize(("steps", "window"), [(9, 1), (10, 3), (60, 3), (100, 5), (300, 15), (1000, 51)])
def test_steps_in_a_mean(steps: int, window: int) -> None:
    assert losses.smoothing(steps) == window
