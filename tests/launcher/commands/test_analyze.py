from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from frontrunner.launcher import cli
from support import logs
from support.reports import MARKUP, study
from support.specs import run_spec


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study").mkdir()
    return study(tmp_path / "study")


def test_json_has_the_keys_of_the_contract(folder: Path) -> None:
    result = run("analyze", str(folder), "--json", "--machine", "lumi-g")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    keys = {
        "id",
        "devices",
        "nodes",
        "layout",
        "global_batch_size",
        "steps",
        "step_time_s",
        "tokens_per_s_per_device",
        "model_flops_per_s_per_device",
        "hardware_flops_per_s_per_device",
        "memory_bytes",
        "lost_lines",
        "warnings",
    }
    assert all(keys <= each.keys() for each in answer["runs"])
    (group,) = answer["scaling"]
    assert group["kind"] == "strong"
    assert all({"devices", "efficiency", "speedup"} <= point.keys() for point in group["points"])
    assert "skipped" in result.stderr, "the file without a run"


def test_people_get_tables_and_warnings(folder: Path) -> None:
    result = run("analyze", str(folder), "--machine", "lumi-g")
    assert result.exit_code == 0
    for text in (
        "strong scaling, global batch 16",
        "efficiency",
        MARKUP,
        "1 lines could not be read",
        "fit: a + b / p",
    ):
        assert text in result.stdout


def test_tables_are_written(folder: Path, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("runs.csv", "steps.csv", "steps.parquet")}
    arguments = ["--csv", str(paths["runs.csv"]), "--steps", str(paths["steps.csv"]), "--json"]
    answer = json.loads(run("analyze", str(folder), *arguments).stdout)
    assert answer["outputs"] == [str(paths["runs.csv"]), str(paths["steps.csv"])]
    run("analyze", str(folder), "--steps", str(paths["steps.parquet"]))
    with paths["runs.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [each["id"] for each in answer["runs"]]
    assert [float(row["step_time_s"]) for row in rows] == [each["step_time_s"] for each in answer["runs"]]
    steps = pl.read_parquet(paths["steps.parquet"])
    assert steps.height == answer["steps"]
    assert set(steps["run"].to_list()) == {each["id"] for each in answer["runs"]}
    assert set(steps["use"].to_list()) == {"steady", "warm-up"}
    assert pl.read_csv(paths["steps.csv"])["step_time_s"].to_list() == steps["step_time_s"].to_list()


def test_a_name_is_no_formula_of_a_spreadsheet(tmp_path: Path) -> None:
    logs.write_run(tmp_path / "=1+1", [2.0, 2.0])
    run("analyze", str(tmp_path), "--csv", str(tmp_path / "a.csv"), "--steps", str(tmp_path / "b.csv"))
    assert "\n'=1+1," in (tmp_path / "a.csv").read_text()
    assert "\n'=1+1," in (tmp_path / "b.csv").read_text()


def test_steps_are_written_for_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logs.write_run(tmp_path / "my run", [2.0, 3.0])
    result = run("analyze", str(tmp_path / "my run"), "--tensorboard", str(tmp_path / "board"), "--json")
    (place,) = json.loads(result.stdout)["outputs"]
    events = EventAccumulator(place)
    events.Reload()
    assert "train/step_time_s" in events.Tags()["tensors"]
    assert [event.step for event in events.Tensors("train/step_time_s")] == [1, 2]


def test_the_report_and_figures_are_written(folder: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "figures"
    result = run("analyze", str(folder), "--report", str(page), "--figures", str(figures), "--json")
    outputs = json.loads(result.stdout)["outputs"]
    assert outputs[0] == str(page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert sorted(outputs[1:]) == sorted(str(path) for path in figures.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "does not exist"),
        (["{folder}", "--steps", "steps.xlsx"], "must end in .csv or .parquet"),
        (["{folder}", "--machine", "colossus"], "colossus"),
    ],
)
def test_a_wrong_request_is_told(folder: Path, arguments: list[str], words: str) -> None:
    result = run("analyze", *(argument.format(folder=folder) for argument in arguments))
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_missing_package_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    result = run("analyze", str(folder))
    assert result.exit_code == 1
    assert "pip install 'frontrunner[analysis]'" in result.stderr


def test_the_help_starts_without_what_it_does_not_need() -> None:
    code = (
        "import sys; sys.argv = ['frontrunner', 'analyze', '--help']\n"
        "from frontrunner.launcher.cli import main\n"
        "try: main()\n"
        "finally: print([name for name in ('polars', 'numpy', 'plotly', 'matplotlib') if name in "
        "sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_top_shows_runs_as_they_are(tmp_path: Path) -> None:
    logs.write_run(tmp_path / "one", [2.0, 3.0], slowest_rank=3, slowest_busy_s=1.5, busy_s=1.0)
    logs.write_run(tmp_path / "two", [], run_spec(training={"steps": 7}))
    step = logs.line(logs.step_record(5, 1.0))
    with (tmp_path / "two" / "records.jsonl").open("a") as file:
        file.write("garbage\n" + step + logs.line({"kind": "summary"}) + '{"kind": "st')
    answer = json.loads(run("top", str(tmp_path), "--json").stdout)
    states = [
        (Path(each["run_dir"]).name, each["state"], each["step"], each["steps"]) for each in answer["runs"]
    ]
    assert states == [("one", "failed", 2, 10), ("two", "finished", 5, 7)]
    shown = run("top", str(tmp_path), "--once").stdout
    assert "slowest rank 3: 1.50 s of work, mean 1.00 s" in shown


def test_top_reads_on_where_it_stopped_and_sees_silence(tmp_path: Path) -> None:
    import os

    from frontrunner.launcher.commands.top import Followed
    from frontrunner.launcher.runs import Runs
    from frontrunner.run_folder import files, locks

    path = logs.write_run(tmp_path / "run", [2.0]) / "records.jsonl"
    followed = Followed(tmp_path / "run")
    runs = Runs([tmp_path / "run"], os.environ)
    lock = (tmp_path / "run" / files.LOCK).open("a")
    assert locks.take(lock)
    followed.look(runs)
    assert (followed.as_dict()["state"], len(followed.steps)) == ("running", 1)
    with path.open("a") as file:
        file.write(logs.line(logs.step_record(2, 2.0))[:20])
    followed.look(runs)
    assert len(followed.steps) == 1, "half a line is none yet"
    with path.open("a") as file:
        file.write(logs.line(logs.step_record(2, 2.0))[20:])
    os.utime(path, (1e9, 1e9))
    followed.look(runs)
    assert str(followed.as_dict()["reason"]).startswith("silent: no record for")
    assert (followed.values("step_time_s"), followed.follower.lost) == ([2.0, 2.0], 0)
    lock.close()


@pytest.mark.parametrize(
    ("values", "line"), [([], ""), ([1.0, 1.0], "▁▁"), ([0.0, 7.0, 3.5], "▁█▅"), ([5.0] * 9, "▁" * 4)]
)
def test_a_sparkline_is_between_least_and_most(values: list[float], line: str) -> None:
    from frontrunner.launcher.commands.top import sparkline

    assert sparkline(values, 4) == line


def test_top_waits_for_a_run_that_has_no_records_yet(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("")
    (answer,) = json.loads(run("top", str(tmp_path), "--json").stdout)["runs"]
    assert (answer["state"], answer["step"]) == ("failed", None)
    assert answer["last_error"] == "it ended before it wrote a record"
    logs.write_run(tmp_path / "below", [2.0])
    (answer,) = json.loads(run("top", str(tmp_path), "--json").stdout)["runs"]
    assert Path(answer["run_dir"]).name == "below", "a run file beside runs is no run"


def test_top_without_a_run_is_a_wrong_request(tmp_path: Path) -> None:
    result = run("top", str(tmp_path))
    assert result.exit_code == 2
    assert "contains no run" in result.stderr
