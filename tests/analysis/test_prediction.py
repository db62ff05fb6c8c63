from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frontrunner.analysis import prediction
from frontrunner.analysis.analyze import analyze
from frontrunner.analysis.read import read
from frontrunner.analysis.run_log import RunLog
from frontrunner.configs.load import load_run
from frontrunner.configs.schema import MachineSpec
from frontrunner.launcher.commands.plan import plan
from support import logs
from support.specs import run_spec


def runs(*paths: Path, machine: str | None = None) -> list[dict[str, Any]]:
    return list(analyze(read(paths), machine).answer["runs"])


def test_a_run_of_ours_has_the_plan_of_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = load_run("gpt-22b-frontier").spec
    (found,) = runs(logs.write_run(tmp_path / "run", [30.0, 20.0, 20.0], spec))
    plan("gpt-22b-frontier", as_json=True)
    planned = json.loads(capsys.readouterr().out)
    assert found["predicted"]["step_time_s"] == pytest.approx(planned["step_time_s"])
    assert found["predicted"]["peak_memory_bytes_per_device"] == planned["peak_memory_bytes_per_device"]
    off = found["comparison"]["step_time_error_pct"]
    assert off == pytest.approx((planned["step_time_s"] / 20 - 1) * 100)
    parts = {each["part"]: each["predicted_s"] for each in found["comparison"]["parts"]}
    assert sum(parts.values()) == pytest.approx(planned["step_time_s"])
    assert all(each["measured_s"] is not None for each in found["comparison"]["parts"])


def test_kernels_stand_below_the_roof(tmp_path: Path) -> None:
    spec = load_run("gpt-22b-frontier").spec
    (found,) = runs(logs.write_run(tmp_path / "run", [30.0, 20.0, 20.0], spec))
    roof = found["predicted"]["roofline"]
    assert [point["kernel"] for point in roof["points"]] == [
        "matrix products of a layer",
        "attention",
        "optimizer",
    ]
    for point in roof["points"]:
        ceiling = min(
            roof["peak_flops_per_s"], roof["memory_bandwidth_bytes_per_s"] * point["flops_per_byte"]
        )
        assert 0 < point["flops_per_s"] <= ceiling
    products, _, optimizer = roof["points"]
    knee = roof["peak_flops_per_s"] / roof["memory_bandwidth_bytes_per_s"]
    assert optimizer["flops_per_byte"] < 1 < knee < products["flops_per_byte"]


@pytest.mark.parametrize(
    ("arguments", "machine", "reason"),
    [
        ({}, None, "its machine is unknown or has no measured rates"),
        ({"num_layers": "None"}, "lumi-g", "does not give the model"),
        ({"bf16": False, "params_dtype": "torch.float32"}, "lumi-g", "computes in float32"),
        ({"global_batch_size": 17}, "lumi-g", "is not a multiple"),
    ],
)
def test_what_cannot_be_planned_says_why(
    tmp_path: Path, arguments: dict[str, Any], machine: str | None, reason: str
) -> None:
    path = tmp_path / "log.out"
    path.write_text(logs.deepspeed_log([2.0] * 4, arguments))
    (found,) = runs(path, machine=machine)
    assert found["predicted"] is None
    assert reason in found["not_predicted"]


def test_a_header_of_another_version_is_read_without_a_plan(tmp_path: Path) -> None:
    folder = logs.write_run(tmp_path / "run", [2.0] * 4)
    records = folder / "records.jsonl"
    records.write_text(records.read_text().replace('"seed": 1234', '"seed": 1234, "newer": 1'))
    (found,) = runs(folder)
    assert found["step_time_s"] == 2.0
    assert found["tokens_per_s_per_device"] == 16 * 16 / 2.0
    assert "training.newer: Extra inputs are not permitted" in found["not_predicted"]


def test_runs_that_differ_in_nothing_that_matters_share_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[str] = []
    own = prediction._predict

    def counted(run: RunLog, machine: MachineSpec | None) -> tuple[dict[str, Any] | None, str | None]:
        planned.append(run.id)
        return own(run, machine)

    monkeypatch.setattr(prediction, "_predict", counted)
    paths = [
        logs.write_run(
            tmp_path / f"{seed}-{steps}", [2.0] * 3, run_spec(training={"seed": seed, "steps": steps})
        )
        for seed in (1, 2)
        for steps in (5, 9)
    ]
    found = runs(*paths)
    assert len(planned) == 1
    assert all(run["predicted"] is found[0]["predicted"] for run in found)


def test_a_study_of_many_different_runs_is_not_planned_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "MOST", 1)
    paths = [
        logs.write_run(tmp_path / str(batch), [2.0] * 3, run_spec(training={"global_batch_size": batch}))
        for batch in (2, 4)
    ]
    first, second = runs(*paths)
    assert first["predicted"]
    assert second["not_predicted"] == "only the first 1 different runs are planned"
