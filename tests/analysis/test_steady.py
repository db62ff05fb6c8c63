from __future__ import annotations

import random
from pathlib import Path

import pytest

from frontrunner.analysis.read import read
from frontrunner.analysis.steady import OTHER, OUTLIER, STEADY, WARM_UP, mark, summarise
from frontrunner.run_folder.steady import warm_up_steps
from support import logs
from support.specs import run_spec

SHORT = {STEADY: "s", WARM_UP: "w", OUTLIER: "o", OTHER: "x"}


def uses(folder: Path, times: list[float]) -> str:
    found = read([logs.write_run(folder / "run", times)])
    return "".join(SHORT[use] for use in mark(found.steps, found.runs)["use"].to_list())


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([2, 2, 2, 2], "wsss"),
        ([9, 5, 3, 2, 2, 2, 2, 2], "wwwsssss"),
        ([2, 2, 2, 9, 2, 2, 2], "wssosss"),
        ([2, 2, 2, 2.08, 2, 2], "wsssss"),  # four per cent: within the twentieth
        ([2], "s"),
        ([9, 2], "ws"),
        ([*range(60, 0, -1)], "w" * 10 + "s" * 50),  # never steady: the warm-up ends all the same
    ],
)
def test_warm_up_and_outliers_are_left_out(tmp_path: Path, times: list[float], expected: str) -> None:
    assert uses(tmp_path, times) == expected


@pytest.mark.parametrize("seed", range(5))
def test_the_rule_is_the_one_of_all_other_figures(tmp_path: Path, seed: int) -> None:
    """Columns and lists of times: the same steps are warm-up."""
    drawn = random.Random(seed)
    for number in range(20):
        times = [drawn.choice([1.0, 1.05, 1.11, 1.5, 4.0]) for _ in range(drawn.randint(1, 30))]
        found = uses(tmp_path / str(number), times)
        assert len(found) - len(found.lstrip("w")) == warm_up_steps(times), times


def test_each_start_warms_up_and_steps_in_another_layout_do_not_count(tmp_path: Path) -> None:
    folder = logs.write_run(tmp_path / "run", [9.0, 8.0, 8.0], run_spec(devices=2))
    with (folder / "records.jsonl").open("a") as file:
        for first, spec in ((4, run_spec(devices=2, layout={"tensor": 2})),) * 2:
            file.write(logs.line(logs.header(spec)))
            records = [logs.step_record(first + step, 2.0) | {"peak_memory_bytes": 10.0} for step in range(3)]
            file.writelines(map(logs.line, records))
            first += 3
    found = read([folder])
    marked = mark(found.steps, found.runs)
    assert "".join(SHORT[use] for use in marked["use"].to_list()) == "xxxwss"
    summary = summarise(marked)
    assert summary["step_time_s"].to_list() == [2.0]
    assert summary["peak_memory_bytes"].to_list() == [10.0], "the former layout took more"


def test_a_summary_is_of_steady_steps(tmp_path: Path) -> None:
    found = read([logs.write_run(tmp_path / "run", [9.0, *([1.0] * 10), 30.0, *([2.0] * 11)])])
    (row,) = summarise(mark(found.steps, found.runs)).to_dicts()
    assert (row["steps"], row["last_step"], row["warm_up"], row["outliers"]) == (23, 23, 1, 1)
    assert row["step_time_s"] == 2.0
    assert row["communication_share"] == pytest.approx(0.1)
    assert (row["first_loss"], row["last_loss"]) == (4.99, 4.77)
