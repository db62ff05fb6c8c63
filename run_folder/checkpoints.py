"""Checkpoints on disk: listing, verification and removal. No torch.

A checkpoint is a folder ``checkpoints/step-N`` of a run folder: ``rank-R.bin`` hold concatenated
values. ``manifest.json`` describes them, with a checksum of each file and of itself. A checkpoint is written
under a temporary name and renamed when everything is on disk, so a folder with its final name is complete
unless it was damaged later. It contains no pickles.
"""

from __future__ import annotations

import json
import math
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
from frontrunner.configs.plain_files import open_plain, read_plain
from frontrunner.configs.schema import ModelSpec
from frontrunner.run_folder.files import CHECKPOINTS, MANIFEST

FORMAT = 1
#: What may differ between the models of a run and a checkpoint: the name, and keys that only training uses.
_FREE = {
    *("name", "sources", "attention_dropout", "hidden_dropout", "init_std"),
    *("experts.aux_loss", "experts.z_loss"),
}
_NAME = re.compile(r"step-(\d+)")
_BLOCK = 1 << 22
#: A manifest has about 200 bytes for each tensor and rank.
_LARGEST_MANIFEST = 1 << 30
#: Bytes of a value, by torch's name of its type.
_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "int32": 4, "uint8": 1}


class DamagedCheckpoint(Exception):
    """A damaged checkpoint; the message names the file and the problem."""


@dataclass(frozen=True)
class File:
    """One file of values: its size in bytes and CRC-32."""

    name: str
    size: int
    crc32: int


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor: its position in the tensor, its file and its first byte there."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    file: int
    position: int


@dataclass(frozen=True)
class Tensor:
    """One tensor of the whole model: torch's name of its type, and the boxes that cover it."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Manifest:
    """The contents of a checkpoint. ``state`` has the run's counters at that step, ``spec`` is the run."""

    step: int
    spec: Mapping[str, Any]
    state: Mapping[str, Any]
    files: Sequence[File]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def path_of(run_dir: Path, step: int) -> Path:
    return run_dir / CHECKPOINTS / f"step-{step:08d}"


def unfinished(path: Path) -> Path:
    """The temporary folder of a checkpoint."""
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
    """The newest complete checkpoint (all bytes verified), and the problem of each newer one."""
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

    Raises SpecError for ``key`` if there is none.
    """
    if (place / MANIFEST).exists():
        return place
    path, problems = newest_valid(place)
    if path is None:
        constraint = "; ".join(["contains no complete checkpoint", *problems])
        raise SpecError(
            [Violation(key, str(place), constraint, "name a run folder or one of its checkpoints")]
        )
    return path


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, and sync the folder to disk."""
    body = asdict(manifest) | {"format": FORMAT}
    path = folder / MANIFEST
    with path.open("w", encoding="utf-8") as file:
        json.dump({"crc32": _checksum(body), "manifest": body}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint; DamagedCheckpoint if it is missing or damaged."""
    file = path / MANIFEST
    try:
        whole = json.loads(read_plain(file, _LARGEST_MANIFEST))
        body = whole["manifest"]
        if whole["crc32"] != _checksum(body):
            raise DamagedCheckpoint(f"{file}: the checksum is wrong")
        if body.pop("format") != FORMAT:
            raise DamagedCheckpoint(f"{file}: was written by another version of frontrunner")
        body["files"] = tuple(File(**entry) for entry in body["files"])
        body["tensors"] = {name: _tensor(entry) for name, entry in body["tensors"].items()}
        manifest = Manifest(**body)
        _check(manifest)
    except OSError as error:
        raise DamagedCheckpoint(f"{file}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DamagedCheckpoint(f"{file}: is not a valid manifest") from None
    return manifest


def _check(manifest: Manifest) -> None:
    """Raise ValueError or TypeError unless all that the manifest describes lies in its files.

    A checksum only shows that it is as it was written, not by whom.
    """
    for file in manifest.files:
        if Path(file.name).name != file.name or file.name in ("", "..") or file.size < 0:
            raise ValueError(file.name)
    for tensor in manifest.tensors.values():
        held = 0
        for chunk in tensor.chunks:
            boxes = zip(chunk.offset, chunk.shape, tensor.shape, strict=True)
            numel = math.prod(chunk.shape)
            end = chunk.position + numel * _BYTES[tensor.dtype]
            if any(not 0 <= first <= first + length <= whole for first, length, whole in boxes):
                raise ValueError(chunk.offset)
            if chunk.file < 0 or chunk.position < 0 or end > manifest.files[chunk.file].size:
                raise ValueError(chunk.position)
            held += numel
        if held != math.prod(tensor.shape):
            raise ValueError(tensor.shape)
    if not isinstance(manifest.spec["model"], dict):
        raise TypeError(manifest.spec)
    _check_state(manifest.state)


def _check_state(state: Mapping[str, Any]) -> None:
    """Raise LookupError, ValueError or TypeError unless the counters of a run are there, and numbers."""
    for counter in ("samples", "updates", "good_steps", "bad_steps", "loss_scale"):
        if not isinstance(value := state[counter], int | float) or not 0 <= value < 2**63:
            raise ValueError(counter)
    if not isinstance(state["first_validation_loss"], int | float | None):
        raise TypeError("first_validation_loss")


def _with_experts(model: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a model, those of its experts by dotted key."""
    experts = model.get("experts")
    found = {key: value for key, value in model.items() if key != "experts"}
    return found | {f"experts.{key}": v for key, v in experts.items()} if isinstance(experts, dict) else found


def check_model(manifest: Manifest, model: ModelSpec) -> None:
    """Raise SpecError with every key in which the checkpoint's model differs from the run's."""
    ours, theirs = _with_experts(model.model_dump(mode="json")), _with_experts(manifest.spec["model"])
    keys = ours.keys() | {key for key in theirs if key.startswith("experts.")}
    violations = [
        Violation(
            f"model.{key}",
            ours.get(key),
            f"the checkpoint's model has {theirs.get(key)}",
            "use the same model",
        )
        for key in keys - _FREE
        if ours.get(key) != theirs.get(key)
    ]
    if violations:
        raise SpecError(sorted(violations, key=lambda violation: violation.path))


def check_file(path: Path, file: File) -> None:
    """Raise DamagedCheckpoint if a file of the checkpoint at ``path`` is damaged."""
    place = path / file.name
    try:
        if place.resolve().parent != path.resolve():
            raise DamagedCheckpoint(f"{place}: is a link out of the checkpoint")
        size = place.stat().st_size
        if size != file.size:
            raise DamagedCheckpoint(f"{place}: has {size} of {file.size} bytes")
        crc32 = 0
        with open_plain(place) as content:
            while block := content.read(_BLOCK):
                crc32 = zlib.crc32(block, crc32)
    except OSError as error:
        raise DamagedCheckpoint(f"{place}: {error.strerror}") from None
    if crc32 != file.crc32:
        raise DamagedCheckpoint(f"{place}: the checksum is wrong")


def commit(path: Path) -> None:
    """Rename a complete checkpoint to its final name, replacing an older one."""
    replaced = path.with_name(f".{path.name}.replaced")
    if path.exists():
        path.rename(replaced)
    unfinished(path).rename(path)
    _sync_folder(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def prune(run_dir: Path, keep: int, keep_every: int | None) -> None:
    """Remove all but the ``keep`` newest checkpoints and those at multiples of ``keep_every``."""
    for path in found(run_dir)[keep:]:
        if keep_every is None or step_of(path) % keep_every:
            # Rename first, so that an interrupted removal leaves no folder that looks complete.
            gone = path.with_name(f".{path.name}.removed")
            with suppress(OSError):  # leftovers only cost space
                path.rename(gone)
                shutil.rmtree(gone)


def clean_up(run_dir: Path) -> None:
    """Remove leftovers of interrupted writes and removals."""
    folder = run_dir / CHECKPOINTS
    for path in folder.glob(".step-*.*") if folder.is_dir() else ():
        name, _, left = path.name[1:].partition(".")
        with suppress(OSError):  # a read-only folder has no leftovers
            if left == "replaced" and not path.with_name(name).exists():
                path.rename(path.with_name(name))  # its successor was not renamed
            else:
                shutil.rmtree(path)


def set_aside(path: Path) -> None:
    """Hide a damaged checkpoint from the list, and keep it for inspection."""
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
