"""What a sweep reports: ranks, the best layout as a run file, which keys matter; as tables, CSV and JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("optuna")
pytest.importorskip("shap")

from frontrunner.configs.load import load_run
from frontrunner.launcher.cli import build as build_cli
from frontrunner.launcher.sweeping.report import build
from frontrunner.launcher.sweeping.sensitivity import explained, fanova, shap_shares
from frontrunner.launcher.sweeping.space import Point, points, predict
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY, Store
from support.sweeps import SMALL, small_sweep

Speed = Callable[[Point], float]


def filled(folder: Path, speed: Speed) -> None:
    """A sweep's folder with a trial of each of the 24 points; those of micro-batch 5 do not fit."""
    sweep = small_sweep(folder)
    known = points(sweep)
    store = Store(folder, sweep, create=True)
    expected = predict(known, sweep.spec.objective).objective
    for point in known:
        trial = store.begin(point, float(expected[point.number]))
        short = point.values["layout.micro_batch_size"] == 5
        store.finish(trial, None if short else speed(point), OUT_OF_MEMORY if short else None, 2.0, 0.0)


def by_tensor(point: Point) -> float:
    return 1000.0 / point.spec.layout.tensor + point.spec.layout.micro_batch_size


def call(*arguments: str) -> str:
    done = CliRunner().invoke(build_cli(arguments), list(arguments))
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    filled(tmp_path, by_tensor)
    return tmp_path


def test_the_object_of_json(folder: Path) -> None:
    found: dict[str, Any] = json.loads(call("sweep", "report", "small.yaml", "--folder", ".", "--json"))
    values = [trial["objective"] for trial in found["trials"] if trial["state"] == "complete"]
    assert len(found["trials"]) == 24 and len(values) == 18
    assert values == sorted(values, reverse=True)
    assert {trial["failure"] for trial in found["trials"][18:]} == {OUT_OF_MEMORY}
    assert found["best"]["values"]["layout.tensor"] == 1
    assert found["best"]["values"]["layout.micro_batch_size"] == 4
    assert found["node_hours"] == 48
    for shares in (found["sensitivity"], found["shap"]):
        assert set(shares) == {"layout.pipeline", "layout.tensor", "layout.micro_batch_size"}
        assert sum(shares.values()) == pytest.approx(1)
        assert min(shares, key=lambda key: shares[key]) == "layout.pipeline"
        assert shares["layout.pipeline"] < 0.02
    trial = found["best"]
    assert trial["error_pct"] == pytest.approx(100 * (trial["predicted"] / trial["objective"] - 1))


def test_tables_csv_and_the_best_run(folder: Path) -> None:
    shown = call("sweep", "report", "small.yaml", "--folder", ".", "--csv", "t.csv", "--best", "best.yaml")
    assert "24 of 8 trials (18 complete, 6 out of memory), 48 node-hours" in " ".join(shown.split())
    assert "fANOVA" in shown and "layout.tensor" in shown
    rows = list(csv.DictReader((folder / "t.csv").open()))
    assert [row["layout.tensor"] for row in rows[:9]] == ["1"] * 9
    assert rows[-1]["failure"] == OUT_OF_MEMORY and rows[-1]["objective"] == ""
    text = (folder / "best.yaml").read_text()
    assert text.startswith("# The best of 24 trials of small: tokens_per_s_per_device 1,004.\n")
    assert text.splitlines()[1] == "extends: gpt-22b-frontier" and len(text.splitlines()) == 3
    best = load_run("best.yaml").spec
    assert best.layout.tensor == 1 and best.layout.micro_batch_size == 4
    base = load_run("gpt-22b-frontier").spec
    assert best.training == base.training, "as long as the base run, not as a trial"


def test_the_best_run_finds_a_base_in_another_folder(folder: Path) -> None:
    """From where it is written, and from anywhere as text; it is what the point was."""
    for name in ("runs", "trials", "elsewhere"):
        (folder / name).mkdir()
    (folder / "runs" / "base.yaml").write_text("extends: gpt-22b-frontier\ntraining: {tokens: 1e9}\n")
    space = "space: {layout.sharding: [zero1, zero3], layout.sharding.wire.weights: [int8], nodes: [2, 4]}\n"
    sweep = small_sweep(folder, f"base: runs/base.yaml\n{space}")
    store = Store(folder / "trials", sweep, create=True)
    known = points(sweep)
    for point in known:
        store.finish(store.begin(point, None), float(point.number), None, 0.0, 0.0)
    report = build(sweep, known, store.trials())
    for place, where in (("elsewhere/best.yaml", folder / "elsewhere"), ("best.yaml", None)):
        (folder / place).write_text(report.best_run(where) or "")
        best = load_run(place).spec
        assert best.layout == known[-1].spec.layout and best.nodes == 4
        assert best.training == load_run("runs/base.yaml", ["nodes=4"]).spec.training
    assert "extends: ../runs/base.yaml\n" in (folder / "elsewhere" / "best.yaml").read_text()


def test_status_while_it_runs(folder: Path) -> None:
    sweep = small_sweep(folder)
    Store(folder, sweep, create=False).begin(points(sweep)[0], None)
    found = json.loads(call("sweep", "status", "small.yaml", "--folder", ".", "--json"))
    assert [t["state"] for t in found["trials"]].count("running") == 1
    assert "sensitivity" not in found
    assert "running" in call("sweep", "status", "small.yaml", "--folder", ".")


def test_too_few_trials_say_nothing(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    store = Store(tmp_path, sweep, create=True)
    for point in points(sweep)[:3]:
        store.finish(store.begin(point, None), 5.0, None, 0.0, 0.0)
    report = build(sweep, points(sweep), store.trials(), sensitivity=True)
    assert (report.sensitivity, report.shap, report.prediction_error_pct) == ({}, {}, None)


@pytest.mark.parametrize("scale", [1e-9, 1e13])
def test_shares_do_not_depend_on_the_unit(tmp_path: Path, scale: float) -> None:
    sweep = small_sweep(tmp_path)
    filled(tmp_path, lambda point: scale * by_tensor(point))
    trials = Store(tmp_path, sweep, create=False).trials()
    assert explained(sweep, trials)[1].max() == 1
    found = shap_shares(sweep, trials)
    assert sum(found.values()) == pytest.approx(1)
    assert found["layout.pipeline"] < 0.02


def test_less_can_be_better(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, SMALL + "objective: step_time_s\n")
    store = Store(tmp_path, sweep, create=True)
    for point in points(sweep):
        store.finish(store.begin(point, None), float(point.spec.layout.pipeline), None, 0.0, 0.0)
    report = build(sweep, points(sweep), store.trials())
    assert report.best is not None and report.best.values["layout.pipeline"] == 2
    trials = store.trials()
    for shares in (fanova(sweep, trials), shap_shares(sweep, trials)):
        assert shares["layout.pipeline"] == pytest.approx(1, abs=0.01)
