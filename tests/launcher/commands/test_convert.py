"""Weights of a run for transformers and back, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner, Result

from frontrunner.launcher.cli import build
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.start import check_start
from support.ranks import run_ranks
from support.runs import records, train_run
from support.specs import FEW, MODELS, run_spec, saving

VALIDATED = {"validation_samples": 16}


def convert(*arguments: object) -> Result:
    command = ["convert", *map(str, arguments)]
    return CliRunner().invoke(build(command), command)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    run_ranks(1, train_run, saving(run_spec(training={"steps": 2}), every_steps=1), folder)
    return folder


@pytest.mark.long_except("llama")
@pytest.mark.parametrize("model", MODELS)
def test_there_and_back(tmp_path: Path, model: str) -> None:
    """Trained by two tensor ranks, to transformers, to a checkpoint, and on with ZeRO-3: the same loss."""
    trained = run_spec(model=model, devices=2, layout=FEW | {"tensor": 2}, training={"steps": 4} | VALIDATED)
    run_ranks(2, train_run, saving(trained, every_steps=4), tmp_path / "run")
    result = convert(tmp_path / "run", tmp_path / "hf", "--to", "huggingface", "--dtype", "float32", "--json")
    assert result.exit_code == 0, result.output
    assert {Path(path).name for path in json.loads(result.stdout)["outputs"]} == {
        "config.json",
        "model.safetensors",
    }
    back = convert(tmp_path / "hf", tmp_path / "back", "--to", "checkpoint")
    assert back.exit_code == 0, back.output
    assert f"checkpoint.start_from={tmp_path / 'back'}" in back.stdout
    spec = run_spec(model=model, devices=2, sharding="zero3", layout=FEW, training={"steps": 1} | VALIDATED)
    run_ranks(2, train_run, saving(spec, start_from=str(tmp_path / "back")), tmp_path / "again")
    last, first = records(tmp_path / "run", "validation")[-1], records(tmp_path / "again", "validation")[0]
    # One forward in float32, in another layout: some last bits; a weight in a wrong place is thousands.
    assert first["loss"] == pytest.approx(last["loss"], rel=1e-5)


def test_the_newest_whole_checkpoint_is_taken(tmp_path: Path, run_dir: Path) -> None:
    assert convert(run_dir, tmp_path / "a", "--to", "huggingface").exit_code == 0
    assert convert(files.path_of(run_dir, 2), tmp_path / "b", "--to", "huggingface").exit_code == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_from_inside_the_folder_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dir: Path
) -> None:
    """The model is named after its folder, and a run can start from the result."""
    folder = tmp_path / "some-model"
    assert convert(run_dir, folder, "--to", "huggingface").exit_code == 0
    monkeypatch.chdir(folder)
    result = convert(".", "../new", "--to", "checkpoint")
    assert result.exit_code == 0, result.output
    assert files.read_manifest(files.found(Path("../new"))[0]).spec["model"]["name"] == "some-model"
    check_start(saving(run_spec(), start_from="../new"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none", "new", "--to", "huggingface"], '"none": is not a folder'),
        (["empty", "new", "--to", "huggingface"], "contains no complete checkpoint"),
        (["empty", "new", "--to", "checkpoint"], "holds no config.json"),
        (["empty", "new", "--to", "gguf"], "is not a known format; use one of: huggingface, checkpoint"),
        (["{run_dir}", "new", "--to", "huggingface", "--dtype", "int8"], "is not a supported type"),
        (["{run_dir}", "{run_dir}", "--to", "huggingface"], "{run_dir}"),
    ],
)
def test_what_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_dir: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    result = convert(*(word.format(run_dir=run_dir) for word in arguments))
    assert result.exit_code == 2
    assert said.format(run_dir=run_dir) in result.stderr
    assert not Path("new").exists()
