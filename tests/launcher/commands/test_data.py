"""``data prepare`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from typer.testing import CliRunner

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.commands.data import app


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(f"text {name}\n" * 30)
    return [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]


def test_several_paths_after_one_input_and_json(inputs: list[str], tmp_path: Path) -> None:
    prefix = str(tmp_path / "corpus" / "train")
    command = ["prepare", "--input", *inputs, "--output", prefix, "--tokenizer", "byte", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    figures = json.loads(result.stdout)
    assert figures["outputs"] == [f"{prefix}.bin", f"{prefix}.idx", f"{prefix}.json"] + [
        str(tmp_path / "corpus" / "tokenizer.json")
    ]
    assert all(Path(path).stat().st_size for path in figures["outputs"])
    assert (figures["documents"], figures["tokens"]) == (2, 2 * (7 * 30 + 1))


def test_people_see_the_figures_and_what_to_write_next(inputs: list[str], tmp_path: Path) -> None:
    prefix = str(tmp_path / "train")
    command = [
        "prepare",
        "--input",
        inputs[0],
        "--input",
        inputs[1],
        "--output",
        prefix,
        "--tokenizer",
        "byte",
    ]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    shown = dict(line.strip().split("  ", 1) for line in result.stdout.splitlines() if "  " in line.strip())
    assert (shown["tokens"].strip(), shown["type of a token"].strip()) == ("422", "uint16")
    assert f"data: {{train: {prefix}, tokenizer: {tmp_path / 'tokenizer.json'}}}" in result.stdout


def test_a_wrong_request_reaches_the_caller(tmp_path: Path) -> None:
    command = ["prepare", "--input", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    with pytest.raises(SpecError, match="does not exist"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_corpus_is_replaced_only_with_force(inputs: list[str], tmp_path: Path) -> None:
    prefix = str(tmp_path / "train")
    command = ["prepare", "--input", inputs[0], "--output", prefix, "--tokenizer", "byte"]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    before = Path(f"{prefix}.bin").read_bytes()
    other = ["prepare", "--input", inputs[1], *command[3:]]
    with pytest.raises(SpecError, match=r"train\.idx exists.*--force"):
        CliRunner().invoke(app, other, catch_exceptions=False)
    assert Path(f"{prefix}.bin").read_bytes() == before
    assert CliRunner().invoke(app, [*other, "--force"], catch_exceptions=False).exit_code == 0
    assert Path(f"{prefix}.bin").read_bytes() != before
