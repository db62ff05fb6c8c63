"""A model may be the folder of a Hugging Face model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.configs.errors import Violation
from frontrunner.configs.load import load_model, load_run

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]
RUN = "model: some-model\nmachine: workstation\ndata: synthetic\n"
CONFIG = {"model_type": "gpt2", "n_layer": 3, "n_embd": 64, "n_head": 2, "vocab_size": 500}


@pytest.fixture
def config(write: Write) -> Path:
    return write(json.dumps(CONFIG), "some-model/config.json")


@pytest.mark.parametrize("name", ["some-model", "./some-model", "some-model/", "some-model/config.json"])
def test_a_folder_is_its_config(config: Path, write: Write, name: str) -> None:
    write(RUN.replace("some-model", name))
    model = load_run("run.yaml").spec.model
    assert (model.name, model.num_layers) == ("some-model", 3)
    assert load_model(name) == model


def test_a_folder_is_relative_to_the_file(config: Path, write: Write) -> None:
    write(RUN.replace("some-model", "../some-model"), "runs/run.yaml")
    write("model: {extends: some-model, num_layers: 2}\nmachine: workstation\ndata: synthetic\n")
    assert load_run("runs/run.yaml").spec.model.num_layers == 3
    assert load_run("run.yaml").spec.model.num_layers == 2


def test_the_working_directory_has_a_name_too(
    config: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(config.parent)
    assert [load_model(name).name for name in (".", "config.json")] == ["some-model"] * 2


def test_a_folder_without_a_config(wrong: Wrong, tmp_path: Path) -> None:
    (tmp_path / "some-model").mkdir()
    found = wrong(RUN)["model"]
    assert (found.constraint, found.line) == ("is a folder without a config.json", 1)


def test_other_kinds_are_not_folders(wrong: Wrong, config: Path) -> None:
    found = wrong(RUN.replace("workstation", "some-model"))["machine"]
    assert found.constraint == "is a Hugging Face model's folder, not a machine file"


def test_mistakes_are_located_in_the_config(wrong: Wrong, write: Write) -> None:
    write(json.dumps(CONFIG | {"n_head": "two"}, indent=1), "some-model/config.json")
    found = wrong(RUN)["model.num_heads"]
    assert (found.file, found.line) == ("some-model/config.json", 5)
