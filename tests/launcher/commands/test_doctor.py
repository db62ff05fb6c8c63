"""What the doctor finds on a login node, and what becomes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

pytest.importorskip("torch")

from frontrunner.configs.load import load_run
from frontrunner.launcher.nodes.diagnosis import Finding
from frontrunner.launcher.nodes.login_node import look_around
from frontrunner.slurm import exclusions


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """A login node on which Slurm answers and modules load."""
    monkeypatch.chdir(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    add(programs, "sinfo", "echo batch; echo extended")
    (tmp_path / ".bash_profile").write_text("module() { case $2 in rocm/9*) return 1;; esac; }\n")
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def add(folder: Path, name: str, code: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{code}\n")
    (folder / name).chmod(0o755)


def look(env: Mapping[str, str], *overrides: str) -> list[Finding]:
    found = look_around(load_run("gpt-22b-frontier", ["slurm.account=abc123", *overrides]).spec, env)
    return [finding for finding in found if finding.level != "disk"]


def test_all_well(env: Mapping[str, str]) -> None:
    assert look(env) == []


@pytest.mark.parametrize(
    ("override", "level", "said"),
    [
        ("slurm.account=null", "policy", "slurm.account"),
        ("slurm.environment={FI_MR_CACHE_MONITOR: memhooks}", "environment", "can deadlock"),
        ("slurm.modules=[rocm/9.9]", "modules", "rocm/9.9 cannot be loaded"),
    ],
)
def test_what_would_fail(env: Mapping[str, str], override: str, level: str, said: str) -> None:
    (finding,) = look(env, override)
    assert (finding.level, finding.severity) == (level, "error")
    assert said in finding.message and finding.fix


@pytest.mark.usefixtures("old_torch")
def test_a_torch_that_is_too_old(env: Mapping[str, str]) -> None:
    (finding,) = look(env)
    assert (finding.level, finding.severity) == ("packages", "error")
    assert finding.message == "torch 2.9.1: frontrunner needs 2.10 or newer" and finding.fix


def test_a_variable_that_the_recipe_overrides(env: Mapping[str, str]) -> None:
    (finding,) = look({**env, "NCCL_CROSS_NIC": "0"})
    assert finding.severity == "warning" and "NCCL_CROSS_NIC=0" in finding.message


def test_partitions_of_another_site(env: Mapping[str, str], tmp_path: Path) -> None:
    add(tmp_path / "programs", "sinfo", "echo standard-g")
    (finding,) = look(env)
    assert finding.severity == "warning" and "batch, extended" in finding.message


def test_no_slurm_and_none_that_answers(env: Mapping[str, str], tmp_path: Path) -> None:
    add(tmp_path / "programs", "sinfo", "exit 1")
    assert [f.level for f in look(env)] == ["slurm"]
    (tmp_path / "programs" / "sinfo").unlink()
    found = look({**env, "PATH": f"{tmp_path}/programs"})
    assert "sinfo is not on the PATH" in found[0].message


def test_room_for_checkpoints(env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100 * 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    spec = load_run("gpt-22b-frontier", ["slurm.account=abc123"]).spec
    (finding,) = look_around(spec, env)
    # 22.07e9 parameters x 14 bytes x 2
    assert finding.message.startswith("100 GiB are free") and finding.message.endswith("need 576")


def test_exclusions(tmp_path: Path) -> None:
    path = exclusions.file_of("frontier", tmp_path / "runs")
    assert exclusions.read(path) == []
    assert exclusions.add(path, {"n1": "network: slow", "n2": "device: sick"}) == ["n1", "n2"]
    assert exclusions.add(path, {"n2": "again", "n3": "new"}) == ["n3"]
    path.write_text(path.read_text() + "# by hand\n\nn4\n")
    assert exclusions.read(path) == ["n1", "n2", "n3", "n4"]
    assert exclusions.joined("n[7-9]", ["n1"]) == "n[7-9],n1"
    assert exclusions.joined(None, []) is None
