from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.slurm_cluster import SlurmCluster, missing
from support.slurm_user import User


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[SlurmCluster]:
    """Four nodes for all tests of a session; tests that ask are skipped where Slurm is not installed."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    try:
        with SlurmCluster(folder) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster: SlurmCluster) -> Iterator[SlurmCluster]:
    """The cluster, with no jobs before and after the test."""
    running_cluster.end_all()
    yield running_cluster
    running_cluster.end_all()


@pytest.fixture
def user(cluster: SlurmCluster, tmp_path: Path) -> User:
    return User(cluster, tmp_path)
