"""``submit`` in an empty folder, with only those programs on the PATH that a test adds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FRONTRUNNER = str(Path(sys.executable).with_name("frontrunner"))
Submit = Callable[..., "subprocess.CompletedProcess[str]"]


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
        return subprocess.run(
            [FRONTRUNNER, "submit", *arguments],
            cwd=tmp_path / "work",
            env={**os.environ, "PATH": str(programs), **env},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return call
