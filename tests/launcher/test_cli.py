from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher import cli
from frontrunner.launcher.errors import RunFailed, try_import
from support.tree import ROOT

WRONG = SpecError(
    [
        Violation("layout.tensor", 3, "3 must divide 4", "use 1, 2 or 4", "run.yaml", 7),
        Violation("nodes", float("nan"), "must be a number", "correct it"),
    ]
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build(arguments), list(arguments))


def program(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("frontrunner")), *arguments]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """``frontrunner train X`` raises the exception put into this list."""
    errors: list[BaseException] = []

    def command(run: str, as_json: bool = typer.Option(False, "--json")) -> None:
        raise errors[0]

    monkeypatch.setattr("frontrunner.launcher.commands.train.train", command)
    return errors


def test_help_names_every_command_and_imports_none() -> None:
    code = (
        "import sys; sys.argv = ['frontrunner', '--help']; from frontrunner.launcher.cli import main\n"
        "heavy = ('frontrunner.launcher.', 'torch', 'numpy', 'yaml', 'rich')\n"
        "try: main()\nfinally: print(sorted(name for name in sys.modules if name.startswith(heavy)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert all(f"\n  {name} " in output for name in cli.COMMANDS)
    assert output.splitlines()[-1] == str(
        [f"frontrunner.launcher.{name}" for name in ("cli", "display", "display.terminal", "errors")]
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_own_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"{name} [OPTIONS]" in result.stdout


def test_commands_do_not_need_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['megatron'] = None\n"
        "import importlib; from frontrunner.launcher.cli import COMMANDS\n"
        "for name, _ in COMMANDS.values(): importlib.import_module(f'frontrunner.launcher.commands.{name}')\n"
        "import frontrunner.launcher.ranks.local, frontrunner.launcher.ranks.launched"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_python_that_is_too_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.13")
    monkeypatch.setattr(sys, "argv", ["frontrunner", "train", "--nope"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith('python = "3.10.13": frontrunner needs 3.11 or newer; ')


def test_version() -> None:
    assert run("--version").stdout.strip() == metadata.version("frontrunner")


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--nope"], ["train"]])
def test_usage(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage: " in result.stderr and "Traceback" not in result.stderr


def test_a_wrong_request(failing: list[BaseException]) -> None:
    failing.append(WRONG)
    result = run("train", "run.yaml")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [str(violation) for violation in WRONG.violations]


def test_a_wrong_request_as_json(failing: list[BaseException]) -> None:
    failing.append(WRONG)
    result = run("train", "run.yaml", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout, parse_constant=pytest.fail)
    assert answer["valid"] is False
    assert answer["violations"][0] == {
        "file": "run.yaml",
        "line": 7,
        "path": "layout.tensor",
        "value": 3,
        "constraint": "3 must divide 4",
        "fix": "use 1, 2 or 4",
    }
    assert answer["violations"][1]["value"] == "nan"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (RunFailed("rank 1 failed"), 1, "rank 1 failed\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_failures(failing: list[BaseException], error: BaseException, code: int, message: str) -> None:
    failing.append(error)
    result = run("train", "run.yaml")
    assert (result.exit_code, result.stderr, result.stdout) == (code, message, "")
    assert json.loads(run("train", "run.yaml", "--json").stdout) == {"error": message.strip()}


def test_a_bug_shows_its_traceback(failing: list[BaseException]) -> None:
    failing.append(AssertionError("ours"))
    result = run("train", "run.yaml")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "AssertionError: ours" in result.stderr


def test_a_reader_that_leaves() -> None:
    process = subprocess.Popen(program("schema"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_try_import() -> None:
    assert try_import("json.decoder", "x").__name__ == "json.decoder"
    with pytest.raises(
        RunFailed, match=r"no_such_package is not installed: pip install 'frontrunner\[wandb\]'"
    ):
        try_import("no_such_package.part", "wandb")


def test_try_import_of_a_broken_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        try_import("broken_package", "wandb")


def test_presets_are_listed_and_printed() -> None:
    assert "machines\n  emulated\n  frontier\n" in run("presets").stdout
    assert run("presets", "llama-3-8b").stdout == (ROOT / "configs/models/llama-3-8b.yaml").read_text()
    (wrong,) = json.loads(run("presets", "frontir", "--json").stdout)["violations"]
    assert wrong["fix"] == "did you mean frontier?"
