"""Checkpoints on disk: which a run has, whether one is whole, and which may go. No torch.

A checkpoint is a folder ``checkpoints/step-N`` of a run folder: ``rank-R.bin`` hold values, one after the
other, and ``manifest.json`` says what they are, with a checksum of each file and of itself. It is written
under another name and gets its own when all of it is on disk, so that a folder of that name is whole
unless something damaged it later. Nothing in it is a pickle.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder.files import CHECKPOINTS, MANIFEST

FORMAT = 1
_NAME = re.compile(r"step-(\d+)")
_BLOCK = 1 << 22


class DamagedCheckpoint(Exception):
    """A checkpoint that is not as it was written; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class File:
    """One file of values: its size in bytes and CRC-32."""

    name: str
    size: int
    crc32: int


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor: where it lies in the tensor, and its first byte in which file."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: int
    position: int


@dataclass(frozen=True)
class Tensor:
    """One tensor of the whole model: type as torch names it, and the boxes that together are it."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. ``state`` are the run's numbers at that step, ``spec`` is the run."""

    step: int
    spec: Mapping[str, Any]
    state: Mapping[str, Any]
    files: Sequence[File]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def path_of(run_dir: Path, step: int) -> Path:
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def unfinished(path: Path) -> Path:
    """Where a checkpoint is written before it gets its name."""
    return path.with_name(f".{path.name}.unfinished")


def found(run_dir: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    folder = run_dir / CHECKPOINTS
    entries = [entry for entry in folder.iterdir() if _NAME.fullmatch(entry.name)] if folder.is_dir() else []
    return sorted(entries, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1])


def newest_valid(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, every byte read, and what is wrong with each newer one."""
    problems = []
    for path in found(run_dir):
        try:
            for file in read_manifest(path).files:
                check_file(path, file)
        except DamagedCheckpoint as error:
            problems.append(str(error))
        else:
            return path, problems
    return None, problems


def locate(place: Path, key: str) -> Path:
    """The checkpoint that a user names: its folder, or the newest valid one of a run folder.

    Raises SpecError under ``key`` where there is none.
    """
    if (place / MANIFEST).exists():
        return place
    path, problems = newest_valid(place)
    if path is None:
        constraint = "; ".join(["holds no whole checkpoint", *problems])
        raise SpecError([Violation(key, str(place), constraint, "name a run folder or a checkpoint in one")])
    return path


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest and have all of the folder's entries on disk."""
    body = asdict(manifest) | {"format": FORMAT}
    path = folder / MANIFEST
    with path.open("w", encoding="utf-8") as file:
        json.dump({"crc32": _checksum(body), "manifest": body}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint; DamagedCheckpoint where it is missing or not as it was written."""
    file = path / MANIFEST
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        body = whole["manifest"]
        if whole["crc32"] != _checksum(body):
            raise DamagedCheckpoint(f"{file}: the checksum is wrong")
        if body.pop("format") != FORMAT:
            raise DamagedCheckpoint(f"{file}: was written by another version of frontrunner")
    except OSError as error:
        raise DamagedCheckpoint(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedCheckpoint(f"{file}: is not a manifest") from None
    body["files"] = tuple(File(**entry) for entry in body["files"])
    body["tensors"] = {name: _tensor(entry) for name, entry in body["tensors"].items()}
    return Manifest(**body)


def check_file(path: Path, file: File) -> None:
    """Raise DamagedCheckpoint where a file of the checkpoint at ``path`` is not as it was written."""
    place = path / file.name
    try:
        size = place.stat().st_size
        if size != file.size:
            raise DamagedCheckpoint(f"{place}: has {size} bytes of {file.size}")
        crc32 = 0
        with place.open("rb", buffering=0) as content:
            while block := content.read(_BLOCK):
                crc32 = zlib.crc32(block, crc32)
    except OSError as error:
        raise DamagedCheckpoint(f"{place}: {error.strerror}") from None
    if crc32 != file.crc32:
        raise DamagedCheckpoint(f"{place}: the checksum is wrong")


def commit(path: Path) -> None:
    """Give a checkpoint whose files are all on disk its name, in the place of an older one of that name."""
    replaced = path.with_name(f".{path.name}.replaced")
    if path.exists():
        path.rename(replaced)
    unfinished(path).rename(path)
    _sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def prune(run_dir: Path, keep: int, keep_every: int | None) -> None:
    """Remove all but the ``keep`` newest checkpoints and those of every ``keep_every``-th step."""
    for path in found(run_dir)[keep:]:
        if keep_every is None or step_of(path) % keep_every:
            # First the name, so that a removal that is cut off leaves no folder that looks whole.
            gone = path.with_name(f".{path.name}.removed")
            with suppress(OSError):  # what cannot be removed costs space only
                path.rename(gone)
                shutil.rmtree(gone)


def clean_up(run_dir: Path) -> None:
    """Remove what interrupted writes and removals left."""
    folder = run_dir / CHECKPOINTS
    for path in folder.glob(".step-*.*") if folder.is_dir() else ():
        name, _, left = path.name[1:].partition(".")
        with suppress(OSError):  # where nothing can be written nothing was left either
            if left == "replaced" and not path.with_name(name).exists():
                path.rename(path.with_name(name))  # its successor did not get its name
            else:
                shutil.rmtree(path)


def set_aside(path: Path) -> None:
    """Take a damaged checkpoint out of the list of those that are found, for people to look at."""
    with suppress(OSError):
        path.rename(path.with_name(f"damaged-{path.name}"))


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    chunks = (Chunk(tuple(c["offset"]), tuple(c["shape"]), c["file"], c["position"]) for c in entry["chunks"])
    return Tensor(entry["dtype"], tuple(entry["shape"]), tuple(chunks))


def _checksum(body: object) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
