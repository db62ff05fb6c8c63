"""Damaged checkpoints are skipped and named, and a failing disk costs no existing checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.files import CHECKPOINTS, MANIFEST
from support.ranks import run_ranks
from support.runs import losses, records, train_run, vanishing_run
from support.specs import FEW, run_spec, saving

DISK = 8 << 20  # bytes
SPEC = saving(run_spec(devices=2, sharding="zero3", layout=FEW), every_steps=3, keep=2)


def truncate(path: Path) -> None:
    file = path / "rank-1.bin"
    os.truncate(file, file.stat().st_size - 1)


def flip(path: Path) -> None:
    file = path / "rank-0.bin"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def flip_in_manifest(path: Path) -> None:
    file = path / MANIFEST
    file.write_text(file.read_text().replace('"updates": 10', '"updates": 11'))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "rank-1.bin: has"),
    "flipped": (flip, "rank-0.bin: the checksum is wrong"),
    "deleted": (lambda path: (path / "rank-1.bin").unlink(), "rank-1.bin: No such file"),
    "manifest flipped": (flip_in_manifest, "manifest.json: the checksum is wrong"),
    "manifest deleted": (lambda path: (path / MANIFEST).unlink(), "manifest.json: No such file"),
    "manifest of another kind": (
        lambda path: (path / MANIFEST).write_text('{"crc32": 1}'),
        "manifest.json: is not a valid manifest",
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_ranks(2, train_run, SPEC, folder)
    return folder


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_one_that_is_whole_is_taken(tmp_path: Path, whole: Path, kind: str) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    damage, said = DAMAGE[kind]
    damage(files.path_of(run_dir, 10))
    assert files.newest_valid(run_dir)[0] == files.path_of(run_dir, 9)
    run_ranks(2, train_run, SPEC, run_dir)
    (warning,) = records(run_dir, "warning")
    assert said in warning["message"]
    assert str(files.path_of(run_dir, 10)) in warning["message"]
    assert records(run_dir, "header")[1]["continued_from"] == 9
    assert losses(run_dir) == losses(whole)
    assert (run_dir / CHECKPOINTS / "damaged-step-00000010").exists()


def test_a_run_whose_checkpoints_are_all_damaged_starts_again(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for path in files.found(run_dir):
        truncate(path)
    run_ranks(2, train_run, SPEC, run_dir)
    assert len(records(run_dir, "warning")) == 2
    assert records(run_dir, "header")[1]["continued_from"] == 0
    assert losses(run_dir) == losses(whole)


def test_what_an_interrupted_write_left_is_no_checkpoint(tmp_path: Path, whole: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    files.path_of(run_dir, 10).rename(files.unfinished(files.path_of(run_dir, 10)))
    # The second of two renames did not happen: the older one of that name comes back.
    files.path_of(run_dir, 9).rename(run_dir / CHECKPOINTS / ".step-00000009.replaced")
    assert files.found(run_dir) == []
    files.clean_up(run_dir)
    assert files.found(run_dir) == [files.path_of(run_dir, 9)]
    assert not list((run_dir / CHECKPOINTS).glob(".*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A run folder whose checkpoints have a file system of their own, with room for two and a half."""
    folder = tmp_path / "run" / CHECKPOINTS
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield tmp_path / "run"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_costs_no_checkpoint(small_disk: Path, whole: Path) -> None:
    filler = small_disk / CHECKPOINTS / "others"
    size = sum(file.stat().st_size for file in files.path_of(whole, 10).iterdir())
    filler.write_bytes(bytes(DISK - 2 * size - size // 2))
    spec = saving(SPEC, keep=3)  # a third does not fit
    for ended in run_ranks(2, train_run, spec, small_disk):
        assert ended.startswith("failed: the checkpoint could not be written at the end, after step 10")
    assert losses(small_disk) == losses(whole)
    warnings = records(small_disk, "warning")
    assert [warning["step"] for warning in warnings] == [9, 10]
    assert "No space left on device" in warnings[0]["message"]
    assert str(files.path_of(small_disk, 6)) in warnings[0]["message"]
    assert [files.step_of(path) for path in files.found(small_disk)] == [6, 3]
    assert files.newest_valid(small_disk) == (files.path_of(small_disk, 6), [])


def test_a_disk_that_cannot_be_written_costs_no_checkpoint(small_disk: Path, whole: Path) -> None:
    short = saving(run_spec(devices=2, sharding="zero3", layout=FEW, training={"steps": 3}), every_steps=3)
    run_ranks(2, train_run, short, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk / CHECKPOINTS)], check=True)
    for ended in run_ranks(2, train_run, SPEC, small_disk):
        assert ended.startswith("failed: the checkpoint could not be written at the end, after step 10")
    warnings = records(small_disk, "warning")
    assert [warning["step"] for warning in warnings] == [6, 9, 10]
    assert all("Read-only file system" in warning["message"] for warning in warnings)
    assert files.newest_valid(small_disk) == (files.path_of(small_disk, 3), [])


def test_a_folder_that_vanishes_is_made_again(tmp_path: Path, whole: Path) -> None:
    assert run_ranks(2, vanishing_run, SPEC, tmp_path, 5) == ["done", "done"]
    assert losses(tmp_path) == losses(whole)
    assert [files.step_of(path) for path in files.found(tmp_path)] == [10, 9]
