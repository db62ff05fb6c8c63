"""What ``support.program`` runs is as a new process of our program."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from support.program import FRONTRUNNER, run, start
from support.terminal import on_terminal

SHORTEST = "model: gpt-tiny\nmachine: workstation\ndata: synthetic\n"


@pytest.mark.parametrize(
    "words", [["check", "é.yaml"], ["check", "é.yaml", "--json", "-o", "nodes=1000"], ["status", "--no-such"]]
)
def test_a_forked_command_is_as_a_new_one(tmp_path: Path, words: list[str]) -> None:
    """Its folder, environment, output, messages and exit code."""
    (tmp_path / "é.yaml").write_text(SHORTEST)
    env = os.environ | {"COLUMNS": "50", "LEFT": "é"}
    new = subprocess.run([FRONTRUNNER, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
    forked = run(*words, folder=tmp_path, env=env)
    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)
    assert forked.stdout + forked.stderr


def test_what_python_reads_as_it_starts_is_obeyed(tmp_path: Path) -> None:
    """A module that is found before ours."""
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)\n")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert run("--version", env=env).returncode == 7
    assert run("--version").returncode == 0


def test_it_can_be_killed_while_another_runs() -> None:
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)  # less than it prints, and nobody reads
    process = start((0, its, its), ["schema"])
    os.close(its)
    try:
        with pytest.raises(TimeoutError):
            process.wait(0.5)
        assert run("--version").returncode == 0
    finally:
        process.kill()
        os.close(ours)
    assert process.wait() == -9


def test_a_terminal_is_one() -> None:
    assert max(map(len, on_terminal("presets", columns=40).lines)) <= 40
