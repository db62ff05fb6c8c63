"""A run folder whose disk takes nothing any more: refused before, explained after."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.run_folder import failures
from frontrunner.run_folder import folder as run_folder
from support.specs import run_spec


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_writable_folder_keeps_no_trace_of_the_attempt(tmp_path: Path) -> None:
    failures.try_writing(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("full")
def test_a_run_is_refused_before_it_starts(tmp_path: Path) -> None:
    with (
        pytest.raises(SpecError, match=r"cannot be written \(No space left on device\); free some space"),
        run_folder.opened(tmp_path / "run", run_spec(devices=1), continues=False),
    ):
        pytest.fail("it would fail at its first checkpoint")


def test_a_folder_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SpecError, match="which is not a folder; choose another folder"),
        run_folder.opened(tmp_path / "file" / "run", run_spec(devices=1), continues=False),
    ):
        pytest.fail("there is no such folder")


@pytest.mark.usefixtures("full")
def test_a_rank_that_could_not_write_why_it_failed(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-0.log").write_text("UserWarning: of no interest\n")
    found = failures.from_exit(tmp_path, 0, 1, 0.0)
    assert found is not None
    assert found.text == (
        f"{tmp_path} cannot be written (No space left on device); free some space, then continue"
    )
