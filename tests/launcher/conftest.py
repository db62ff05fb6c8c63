from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from frontrunner.configs.load import dump
from support.specs import run_spec

MARK = "FRONTRUNNER_TEST_MARK"
# The ranks' functions are found by name, here and in the programs that start them.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A run of three ranks."""
    path = tmp_path / "three.yaml"
    path.write_text(dump(run_spec(devices=3, training={"global_batch_size": 3})))
    return path


@pytest.fixture
def run_dir(tmp_path: Path, run_file: Path) -> Path:
    """A run's folder as the launcher has made it before it starts the ranks."""
    folder = tmp_path / "a run's folder"
    folder.mkdir()
    (folder / "run.yaml").write_text(run_file.read_text())
    return folder


@pytest.fixture
def old_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, first on the path here and in new processes, that says torch is 2.9.1."""
    folder = tmp_path / "old"
    (folder / "torch-2.9.1.dist-info").mkdir(parents=True)
    (folder / "torch-2.9.1.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.9.1\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{os.environ['PYTHONPATH']}")
    return folder


@pytest.fixture
def no_process_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test if a process that it started, at any remove, outlives it by more than moments."""
    mark = str(uuid.uuid4())
    monkeypatch.setenv(MARK, mark)
    yield
    deadline = time.monotonic() + 10
    while left := _marked(f"{MARK}={mark}".encode()):
        if time.monotonic() > deadline:
            for number in left:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            pytest.fail(f"processes were left: {list(left.values())}")
        time.sleep(0.05)


def _marked(entry: bytes) -> dict[int, str]:
    """Number and command of the processes with this entry in their environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it ended while we looked
            continue
    return found
