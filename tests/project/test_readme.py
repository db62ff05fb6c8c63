"""What README.md shows works."""

from __future__ import annotations

import re
from pathlib import Path

from frontrunner.configs.load import load_run
from frontrunner.configs.load_sweep import load_sweep
from frontrunner.launcher.cli import COMMANDS
from frontrunner.parallelism.layout import Layout
from support.tree import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_run_files_are_right(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    assert blocks("yaml")
    for text in blocks("yaml"):
        path.write_text(text)
        if "\nspace:" in text:
            assert load_sweep(str(path)).spec.space
            continue
        Layout.from_spec(load_run(str(path)).spec)


def test_commands_exist() -> None:
    named = set(re.findall(r"^frontrunner (\w+)", "".join(blocks("bash")), re.MULTILINE))
    assert named
    assert named <= COMMANDS.keys()
    assert set(COMMANDS) <= set(re.findall(r"`frontrunner (\w+)", README)), "each command is told"


def test_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make (\w+)", "".join(blocks("bash")))) == {"train", "test"} <= {*targets}
