"""Folders that somebody else wrote: refused by name, without waiting and in little memory."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.plain_files import open_plain, read_plain
from frontrunner.launcher.runs import Runs
from frontrunner.run_folder import checkpoints, failures, files, jobs, locks
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.record_reader import Follower, last_records, read_records
from frontrunner.run_folder.record_writer import RecordWriter
from support.counters import COUNTERS
from support.specs import run_spec

HUGE = 1 << 40
STEP = b'{"kind": "step", "step": 1}\n'


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="is not a regular file"):
            open_plain(path)
    with pytest.raises(IsADirectoryError):
        open_plain(tmp_path)
    (tmp_path / "file").write_bytes(b"12345")
    assert read_plain(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="is larger than 4 bytes"):
        read_plain(tmp_path / "file", 4)


@pytest.mark.parametrize("kind", ["pipe", "device", "huge"])
def test_files_of_a_run_that_are_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / files.ERRORS).mkdir()
    for name in (files.RECORDS, files.JOBS, files.LOCK, f"{files.ERRORS}/rank-0.txt"):
        match kind:
            case "pipe":
                os.mkfifo(tmp_path / name)
            case "device":
                (tmp_path / name).symlink_to("/dev/zero")
            case _:
                (tmp_path / name).touch()
                os.truncate(tmp_path / name, HUGE)
    assert last_records(tmp_path) == []
    assert Follower(tmp_path).new_records() == []
    assert locks.last_start(tmp_path / files.LOCK) == locks.Start()
    assert failures.first_cause(tmp_path) is None
    with pytest.raises(OSError, match="is "):
        read_records(tmp_path)
    with pytest.raises(OSError, match="is "):
        jobs.read(tmp_path)
    row = Runs([tmp_path], {}).row(tmp_path)
    assert row["last_error"].startswith("jobs.jsonl: is ")


def test_records_behind_a_hole_are_found(tmp_path: Path) -> None:
    path = tmp_path / files.RECORDS
    path.write_bytes(STEP + b"torn")
    assert len(Follower(tmp_path).new_records()) == 1
    assert Follower(tmp_path, from_end=True).new_records() == []
    RecordWriter(tmp_path).close()
    assert path.read_bytes() == STEP
    path.write_bytes(b"x" * 300_000)
    RecordWriter(tmp_path).close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize("name", [files.LOCK, files.RECORDS, files.JOBS])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    """A copied folder may have a link to a file of the user who trains in it."""
    mine, run_dir = tmp_path / "mine", tmp_path / "run"
    mine.write_text("my own")
    run_folder.create(run_dir, run_spec(devices=1))
    (run_dir / name).symlink_to(mine)

    def write() -> None:
        match name:
            case files.LOCK:
                with run_folder.claimed(run_dir) as lock:
                    locks.note_start(lock, None)
            case files.RECORDS:
                RecordWriter(run_dir).close()
            case _:
                jobs.append(run_dir, "cancelled")

    with pytest.raises((SpecError, OSError), match="Too many levels of symbolic links"):
        write()
    assert mine.read_text() == "my own"


@pytest.mark.parametrize("name", [files.ERRORS, files.LOGS, files.STACKS])
def test_what_ranks_write_does_not_leave_the_folder(tmp_path: Path, name: str) -> None:
    run_dir = tmp_path / "run"
    run_folder.create(run_dir, run_spec(devices=1))
    (tmp_path / "mine").mkdir()
    if (run_dir / name).exists():
        (run_dir / name).rmdir()
    (run_dir / name).symlink_to(tmp_path / "mine")
    with (
        pytest.raises(SpecError, match=f"{name} is a link: what the ranks write would go elsewhere"),
        run_folder.claimed(run_dir),
    ):
        pytest.fail("it would write through the link")


@pytest.mark.parametrize("name", [files.RECORDS, files.JOBS])
def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(SpecError, match=f"{name} is no file; move it away"), run_folder.claimed(tmp_path):
        pytest.fail("nothing could be written")


def checkpoint(run_dir: Path) -> Path:
    path = checkpoints.path_of(run_dir, 1)
    path.mkdir(parents=True)
    content = bytes(16)
    (path / "rank-0.bin").write_bytes(content)
    file = checkpoints.File("rank-0.bin", 16, zlib.crc32(content))
    chunks = (checkpoints.Chunk((0, 0), (1, 2), 0, 0), checkpoints.Chunk((1, 0), (1, 2), 0, 8))
    tensors = {"weights/w": checkpoints.Tensor("float32", (2, 2), chunks)}
    checkpoints.write_manifest(path, checkpoints.Manifest(1, {"model": {}}, COUNTERS, (file,), tensors))
    return path


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a manifest, and make its checksum right again."""
    body = json.loads((path / files.MANIFEST).read_text())["manifest"]
    edit(body)
    crc32 = zlib.crc32(json.dumps(body, sort_keys=True).encode())
    (path / files.MANIFEST).write_text(json.dumps({"crc32": crc32, "manifest": body}))


def test_a_manifest_that_is_right(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    change(path, lambda body: None)
    assert checkpoints.newest_valid(tmp_path) == (path, [])


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body["files"][0].update(name="../../../secret"),
        lambda body: body["files"][0].update(name="/dev/zero"),
        lambda body: body["files"][0].update(name=".."),
        lambda body: body["files"][0].update(size=-1),
        lambda body: body.update(files=3),
        lambda body: body.pop("tensors"),
        lambda body: body.update(spec={}),
        lambda body: body.update(state={}),
        lambda body: body["state"].pop("bad_steps"),
        lambda body: body["state"].update(samples=-1),
        lambda body: body["state"].update(loss_scale="2"),
        lambda body: body["state"].update(updates=float("inf")),
        lambda body: body["state"].update(first_validation_loss="4"),
        lambda body: body["tensors"]["weights/w"].update(shape=[1 << 40, 1 << 20]),
        lambda body: body["tensors"]["weights/w"].update(shape=[2]),
        lambda body: body["tensors"]["weights/w"].update(dtype="load"),
        lambda body: body["tensors"]["weights/w"]["chunks"].pop(),
        lambda body: body["tensors"]["weights/w"]["chunks"][0].update(file=9),
        lambda body: body["tensors"]["weights/w"]["chunks"][0].update(position=1 << 50),
        lambda body: body["tensors"]["weights/w"]["chunks"][0].update(position=-8),
        lambda body: body["tensors"]["weights/w"]["chunks"][0].update(shape=[3, 2]),
        lambda body: body["tensors"]["weights/w"]["chunks"][0].update(offset=["a", 0]),
    ],
)
def test_a_manifest_that_leads_astray(tmp_path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = checkpoint(tmp_path)
    change(path, edit)
    assert checkpoints.newest_valid(tmp_path) == (
        None,
        [f"{path / files.MANIFEST}: is not a valid manifest"],
    )


def test_a_file_of_values_that_is_a_link(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    (path / "rank-0.bin").rename(tmp_path / "elsewhere")
    (path / "rank-0.bin").symlink_to(tmp_path / "elsewhere")
    assert "rank-0.bin: is a link out of the checkpoint" in checkpoints.newest_valid(tmp_path)[1][0]


def test_a_manifest_that_is_a_pipe_or_huge(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    os.truncate(path / files.MANIFEST, HUGE)
    assert "is larger than" in checkpoints.newest_valid(tmp_path)[1][0]
    (path / files.MANIFEST).unlink()
    os.mkfifo(path / files.MANIFEST)
    assert "is not a regular file" in checkpoints.newest_valid(tmp_path)[1][0]
