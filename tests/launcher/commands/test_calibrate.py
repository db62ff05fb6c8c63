"""``calibrate`` on run folders whose speed known constants made."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import dump, load_machine, load_run
from frontrunner.launcher.commands.calibrate import calibrate
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.calibrate import with_constants
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.step_time import step_time

TRUTH = {"gemm_factor": 0.65, "rings.across_nodes": 6e9}


def trained(folder: Path, *overrides: str) -> Path:
    """The folder of a run as fast as the planner says with TRUTH."""
    spec = load_run("gpt-22b-frontier", overrides).spec
    workload = Workload.of(spec)
    assert workload.software
    workload = replace(workload, software=with_constants(workload.software, TRUTH))
    seconds = float(step_time(workload, Candidates.of(spec, Layout.from_spec(spec))).total[0])
    folder.mkdir()
    (folder / "run.yaml").write_text(dump(spec))
    steps = [seconds * 3, *[seconds] * 6]
    lines = [json.dumps({"kind": "step", "step": n, "step_time_s": s}) for n, s in enumerate(steps)]
    (folder / "records.jsonl").write_text("\n".join([*lines, '{"kind": "st']))
    return folder


def test_the_constants_are_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        trained(tmp_path / "a", "nodes=2"),
        trained(
            tmp_path / "b", "nodes=16", "layout.tensor=8", "layout.pipeline=1", "layout.sharding.preset=zero3"
        ),
        trained(tmp_path / "c", "nodes=8", "layout.tensor=4", "layout.sharding.preset=zero2"),
        trained(
            tmp_path / "d",
            "nodes=16",
            "layout.tensor=8",
            "layout.pipeline=1",
            "training.global_batch_size=64",
        ),
    ]
    file = tmp_path / "mine.yaml"
    calibrate(runs, "frontier", output=file, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["constants"] == pytest.approx(TRUTH, rel=0.01)
    assert found["before"]["gemm_factor"] == load_machine("frontier").software["2025"].gemm_factor
    assert max(abs(error) for error in found["log_error_left_out"].values()) < 0.02
    assert max(abs(error) for error in found["log_error_before"].values()) > 0.2
    mine = load_machine(str(file)).software
    assert mine["2025"].gemm_factor == pytest.approx(0.65, rel=0.01)
    assert mine["2023"] == load_machine("frontier").software["2023"]


def test_one_run_is_enough_but_checks_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate([trained(tmp_path / "a")], "frontier", output=tmp_path / "mine.yaml")
    out = capsys.readouterr().out
    assert "gemm_factor: 0.806 -> 0.65" in out
    assert "- fitted without this run" in out


@pytest.mark.parametrize(
    ("machine", "software", "said"),
    [
        ("summit", None, "is neither a machine preset nor a file"),
        ("workstation", None, "workstation has no rates to fit"),
        ("frontier", "1999", "frontier has 2023, 2025"),
    ],
)
def test_a_machine_that_cannot_be_fitted(
    tmp_path: Path, machine: str, software: str | None, said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        calibrate([trained(tmp_path / "a")], machine, software, tmp_path / "mine.yaml")
    assert not (tmp_path / "mine.yaml").exists()


def test_the_machine_file_is_not_its_own_base(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    runs = [trained(tmp_path / "a")]
    calibrate(runs, "frontier", output=mine)
    text = mine.read_text()
    with pytest.raises(SpecError, match="is the input machine file"):
        calibrate(runs, str(mine), output=mine)
    assert mine.read_text() == text
    calibrate(runs, str(mine), output=tmp_path / "next.yaml")
    assert load_machine(str(tmp_path / "next.yaml")).software["2025"].gemm_factor == pytest.approx(0.65, 0.01)


def test_a_constant_at_its_bound_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "a")
    lines = (run / "records.jsonl").read_text().splitlines()
    slow = [json.loads(line) for line in lines[:-1]]
    faster = [json.dumps(record | {"step_time_s": record["step_time_s"] / 4}) for record in slow]
    calibrate([run], "frontier", output=tmp_path / "mine.yaml")
    assert not capsys.readouterr().err
    (run / "records.jsonl").write_text("\n".join(faster))
    calibrate([run], "frontier", output=tmp_path / "mine.yaml")
    assert "gemm_factor is at its bound 1.25" in capsys.readouterr().err


def test_errors_are_shares_of_the_measured_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate([trained(tmp_path / "a")], "frontier", output=tmp_path / "mine.yaml", as_json=True)
    (error,) = json.loads(capsys.readouterr().out)["log_error_before"].values()
    calibrate([tmp_path / "a"], "frontier", output=tmp_path / "mine.yaml")
    assert f"speed error {math.exp(error) - 1:+.1%} before" in capsys.readouterr().out
    assert f"{math.exp(error) - 1:.1%}" != f"{error:.1%}"


def test_folders_that_hold_no_steps(tmp_path: Path) -> None:
    short = trained(tmp_path / "a")
    (short / "records.jsonl").write_text("")
    with pytest.raises(SpecError, match="contains no measured steps"):
        calibrate([short], "frontier", output=tmp_path / "mine.yaml")
    (short / "records.jsonl").unlink()
    with pytest.raises(SpecError, match="records.jsonl cannot be read"):
        calibrate([short], "frontier", output=tmp_path / "mine.yaml")
    with pytest.raises(SpecError, match="cannot be read"):
        calibrate([tmp_path / "none"], "frontier", output=tmp_path / "mine.yaml")


def test_a_run_of_a_machine_of_another_shape(tmp_path: Path) -> None:
    """Its layout on these nodes would be another, and its speed no speed of it."""
    run = trained(tmp_path / "a", "nodes=2", "machine.packages_per_node=2")
    with pytest.raises(SpecError, match="nodes of 2 x 2 devices, and frontier's have 4 x 2"):
        calibrate([run], "frontier", output=tmp_path / "mine.yaml")


def test_steps_before_a_run_was_continued_do_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may have been taken in another layout."""
    run = trained(tmp_path / "a", "nodes=2")
    records = run / "records.jsonl"
    slow = [json.dumps({"kind": "step", "step": n, "step_time_s": 1e4}) for n in range(50)]
    records.write_text("\n".join([*slow, '{"kind": "header"}', records.read_text()]))
    calibrate([run], "frontier", output=tmp_path / "mine.yaml", as_json=True)
    assert json.loads(capsys.readouterr().out)["constants"]["gemm_factor"] == pytest.approx(0.65, rel=0.01)
