"""``frontrunner compare``, with real ranks of two engines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner, Result

from frontrunner.configs.load import dump
from frontrunner.launcher.cli import build
from support.specs import run_spec

#: What is asked for in a run file and a comparison leaves out must not stop it.
TRAINING = {"global_batch_size": 4, "validation_samples": 4, "validate_every_steps": 2}


def compare(*arguments: str) -> Result:
    command = ["compare", *arguments]
    return CliRunner().invoke(build(command), command)


@pytest.fixture(autouse=True)
def run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "two.yaml"
    path.write_text(dump(run_spec(devices=2, sharding="hsdp", training=TRAINING)))
    return path


@pytest.mark.long
def test_engines_side_by_side(tmp_path: Path) -> None:
    result = compare("two.yaml", "--steps", "2", "--json", "--run-dir", "both")
    assert result.exit_code == 0, result.stderr
    native, deepspeed, fsdp = json.loads(result.stdout)["outputs"]
    assert (native["step_time_ratio"], native["reason"]) == (1.0, None)
    # That engines are equal is shown in float64 (tests/parallelism/runtime/baselines); this is float32.
    for key in ("first_loss", "last_loss"):
        assert fsdp[key] == pytest.approx(native[key], rel=1e-4)
    assert fsdp["bytes_sent"] is None
    assert native["bytes_sent"]["package"] > 0
    assert deepspeed["last_loss"] == pytest.approx(native["last_loss"], rel=1e-4)
    assert (tmp_path / "both" / "fsdp" / "records.jsonl").exists()


def test_an_engine_that_cannot_is_listed_with_the_reason() -> None:
    result = compare("two.yaml", "--steps", "2", "--engines", "fsdp", "-o", "layout.sharding.preset=ddp")
    assert result.exit_code == 1
    assert "FSDP cannot express (1, 1, 1)" in " ".join(result.stdout.replace("│", " ").split())


@pytest.mark.parametrize("engines", [",", "native,nativ", "fsdp,fsdp"])
def test_engines_must_be_names_each_once(engines: str) -> None:
    result = compare("two.yaml", "--engines", engines)
    assert result.exit_code == 2
    assert "--engines" in result.stderr
    assert "native,deepspeed,fsdp" in result.stderr


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old" / "native").mkdir(parents=True)
    (tmp_path / "old" / "native" / "run.yaml").touch()
    result = compare("two.yaml", "--engines", "native", "--run-dir", "old")
    assert result.exit_code == 2
    assert "already contains a run" in result.stderr
