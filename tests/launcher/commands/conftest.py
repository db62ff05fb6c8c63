"""Commands whose ranks start soon, and ``submit`` in a folder with only a test's programs on its PATH."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from frontrunner.launcher.ranks import local
from support.program import WarmRanks, run

Submit = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def warm_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks of commands that are called here are forked from a process that has torch loaded."""
    monkeypatch.setattr(local, "start_server", WarmRanks())


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return folder


@pytest.fixture
def submit(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Calls the command in an empty folder."""
    for name in ("SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "work").mkdir()

    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PATH": str(programs), **env}
        return run("submit", *arguments, folder=tmp_path / "work", env=env, timeout=60)

    return call
