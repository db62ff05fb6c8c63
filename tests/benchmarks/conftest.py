from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from emulated_cluster.cluster import EmulatedCluster

from support.emulation import MARK, marked, topology


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmulatedCluster]:
    """Two nodes of two packages of two, at the full rates; the ranks find nothing imported."""
    with EmulatedCluster(topology(), preload=()) as up:
        yield up


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Is in the environment of every process that the test starts; fails if one of them outlives it."""
    entry = str(uuid.uuid4())
    monkeypatch.setenv(MARK, entry)
    yield entry
    deadline = time.monotonic() + 15
    while left := marked(entry):
        assert time.monotonic() < deadline, f"processes are left: {left}"
        time.sleep(0.05)
