"""Mistakes at every command end with their exit code and a message that helps, never with a traceback."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from frontrunner.launcher import cli
from support.wrong_files import RUN, place

TABLE: dict[str, list[str]] = {}
for file in sorted(Path(__file__).with_name("mistakes").glob("*.yaml")):
    TABLE |= yaml.safe_load(file.read_text())
CASES = [(command, *row.split(" | ")) for command, rows in TABLE.items() for row in rows]
#: The files that `check` refuses, at other commands that take a run file.
SAME = [
    (given, said)
    for command, given, said, *_ in CASES
    # A run folder is right at the others.
    if command == "check" and " -o" not in given and "check" not in said and given != "runs/a"
]
CASES += [(command, given, said) for command in ("plan", "doctor") for given, said in SAME]
CASES += [("submit", f"{given} --dry-run", said) for given, said in SAME]
FEWEST = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of the mistakes; one folder for all of them, because none may change it."""
    made = tmp_path_factory.mktemp("mistakes")
    place(made)
    return made


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the working directory."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")  # typer breaks its lines
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return folder


def _run(arguments: list[str], capsys: Any) -> tuple[object, str, str]:
    """The exit code, and what is on stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.build(arguments)(arguments, prog_name="frontrunner")
    shown = capsys.readouterr()
    return ended.value.code, shown.out, shown.err


def _entries(folder: Path) -> set[str]:
    return {os.path.join(at, name) for at, below, names in os.walk(folder) for name in [*below, *names]}  # noqa: PTH118


@pytest.mark.parametrize(("command", "given", "said", "code"), [(*case, "2")[:4] for case in CASES])
def test_mistakes(
    command: str,
    given: str,
    said: str,
    code: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = shlex.split(given)
    while words and re.match(r"[A-Z_]+=", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    before = _entries(here)
    ended, output, message = _run([*command.split(), *words], capsys)
    assert "Traceback" not in message
    lacking = re.search(r"^(\w+) is not installed: pip install 'frontrunner\[", message, re.MULTILINE)
    if lacking and importlib.util.find_spec(lacking[1]) is None:
        pytest.skip(f"needs {lacking[1]}")
    assert said in message
    assert ended == int(code)
    assert _entries(here) == before
    if "--json" in words and "No such option: --json" not in message:
        assert isinstance(json.loads(output), dict)


def test_every_command_has_mistakes() -> None:
    """And every command of a group; SAME counts too."""
    counts, wanted = Counter(command for command, *_ in CASES), set(cli.COMMANDS)
    for name in cli.COMMANDS:
        group: Any = typer.main.get_command(cli.build([name]))
        below = getattr(group.commands[name], "commands", {})
        wanted |= {f"{name} {each}" for each in below}
    assert {name: counts[name] for name in wanted if counts[name] < FEWEST} == {}


@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_files_of_other_systems_are_fine(
    change: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ok.yaml").write_bytes(change(RUN).encode())
    code, _, message = _run(["check", "ok.yaml"], capsys)
    assert (code, message) == (0, "")
