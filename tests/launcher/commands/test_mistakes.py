"""Mistakes at every command end with exit code 2 and a message that helps, never with a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from frontrunner.launcher import cli

RUN = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"
LOG = (
    " iteration       10/    1000 | consumed samples:          640 | elapsed time per iteration (ms): 100.0 |"
    " learning rate: 1.0E-4 | global batch size:    64 | lm loss: 1.0E+01 | grad norm: 1.0 |\n"
)
FILES: dict[str, str | bytes] = {
    "ok.yaml": RUN,
    "empty.yaml": "",
    "tabs.yaml": RUN + "layout:\n\ttensor: 2\n",
    "binary.yaml": b"\x7fELF\0\0",
    "huge.yaml": b"a: 1\n" * 300_000,
    "latin.yaml": b"name: caf\xe9\n",
    "list.yaml": "- 1\n",
    "page.yaml": "<!DOCTYPE html>\n<html></html>\n",
    "sweep.yaml": "base: ok.yaml\nspace: {layout.micro_batch_size: [1, 2]}\n",
    "meg.log": LOG,
    "runs/a/run.yaml": RUN,
    "runs/a/records.jsonl": '{"kind": "header"}\n',
    "folder/nothing": "",
}
TABLE: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("mistakes.yaml").read_text())
CASES = [(command, *row.split(" | ")) for command, rows in TABLE.items() for row in rows]
#: The mistakes of `check` at other commands that take a run file.
SAME = [(given, said) for command, given, said in CASES if command == "check"]
CASES += [(command, given, said) for command in ("plan", "doctor") for given, said in SAME]
CASES += [("submit", f"{given} --dry-run", said) for given, said in SAME if given and given[-2:] != "-o"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with all files of the table."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # typer breaks its lines


def _run(arguments: list[str], capsys: Any) -> tuple[object, str]:
    """The exit code, and what is on stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.build(arguments)(arguments, prog_name="frontrunner")
    return ended.value.code, capsys.readouterr().err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("command", "given", "said"), CASES)
def test_mistakes(command: str, given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    takes_nothing = command in ("ok.yaml", "frontier")
    words = given.split() if given or takes_nothing else [""]
    code, message = _run([command, *words], capsys)
    assert "Traceback" not in message
    assert said in message
    assert code == 2


def test_every_command_has_mistakes() -> None:
    assert cli.COMMANDS.keys() <= TABLE.keys()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("change", [lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text])
def test_files_of_other_systems_are_fine(change: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Path("ok.yaml").write_bytes(change(RUN).encode())
    assert _run(["check", "ok.yaml"], capsys) == (0, "")
