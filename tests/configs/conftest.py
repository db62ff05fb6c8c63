"""Writing run files and reading what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from frontrunner.configs.errors import Violation
from frontrunner.configs.load import examine

Write = Callable[..., Path]
Wrong = Callable[..., dict[str, Violation]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file in the working directory, an empty folder: ``write(text, name="run.yaml")``."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str | bytes, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


@pytest.fixture
def wrong(write: Write) -> Wrong:
    """The violations of a run file by dotted key (each key at most once)."""

    def violations(text: str | bytes, overrides: Sequence[str] = ()) -> dict[str, Violation]:
        write(text)
        found = examine("run.yaml", overrides).violations
        by_path = {violation.path: violation for violation in found}
        assert len(by_path) == len(found), found
        return by_path

    return violations
