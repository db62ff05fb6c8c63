"""Stores boxes: one file of raw values per rank and a manifest, behind DCP's storage classes."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.checkpoints import Chunk, File, Manifest, Tensor


class RankFileWriter(StorageWriter):
    """Writes ``rank-R.bin`` into a temporary folder, which the coordinator renames last.

    ``manifest`` makes the manifest of the written files.
    """

    def __init__(self, path: Path, rank: int, manifest: Callable[[list[File]], Manifest]) -> None:
        self.path = path
        self.rank = rank
        self.manifest = manifest
        self.folder = files.unfinished(path)

    def reset(self, checkpoint_id: object = None) -> None:
        """Nothing to do: each checkpoint has its own writer."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if is_coordinator and self.folder.exists():  # from an earlier run that was interrupted
            shutil.rmtree(self.folder)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        self.folder.mkdir(parents=True)
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        name = f"rank-{self.rank}.bin"
        crc32 = size = 0
        with (self.folder / name).open("wb", buffering=0) as file:
            for item in plan.items:
                values = planner.resolve_data(item)
                assert isinstance(values, torch.Tensor)
                # Flatten first: a view as bytes needs a last dim with stride 1.
                content = values.detach().cpu().flatten().view(torch.uint8).numpy().data
                written = 0
                while written < len(content):
                    written += file.write(content[written:])
                crc32 = zlib.crc32(content, crc32)
                size += len(content)
            os.fsync(file.fileno())
        future: Future[list[WriteResult]] = Future()
        future.set_result([WriteResult(MetadataIndex(name), size, File(name, size, crc32))])
        return future

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Runs on the coordinator after all ranks have written."""
        written = [result.storage_data for of_rank in results for result in of_rank]
        files.write_manifest(self.folder, self.manifest(written))
        files.commit(self.path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        return True


class RankFileReader(StorageReader):
    """Reads boxes from the files of a checkpoint whose manifest is known."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._chunks = {
            (name, chunk.offset): (tensor, chunk)
            for name, tensor in manifest.tensors.items()
            for chunk in tensor.chunks
        }

    def reset(self, checkpoint_id: object = None) -> None:
        """Nothing to do: each checkpoint has its own reader."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return Metadata({})

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing to do: the manifest is known."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        for item in plan.items:
            assert item.storage_index.offset is not None
            tensor, chunk = self._chunks[item.storage_index.fqn, tuple(item.storage_index.offset)]
            values = box(self.path, self.manifest, tensor, chunk)
            for dim, (start, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                values = values.narrow(dim, start, length)
            target = planner.resolve_tensor(item)
            target.copy_(values)
            planner.commit_tensor(item, target)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        return True


def box(path: Path, manifest: Manifest, tensor: Tensor, chunk: Chunk) -> torch.Tensor:
    """The values of one saved box, as a view of its file."""
    dtype = getattr(torch, tensor.dtype)
    size = int(np.prod(chunk.shape, dtype=np.int64)) * dtype.itemsize
    # Copy on write, because torch warns about read-only memory.
    content = np.memmap(path / manifest.files[chunk.file].name, np.uint8, "c", chunk.position, (size,))
    return torch.from_numpy(content).view(dtype).view(chunk.shape)


def whole_tensor(path: Path, manifest: Manifest, name: str) -> torch.Tensor:
    """One tensor, assembled from all its boxes."""
    tensor: Tensor = _known(manifest.tensors, name)
    whole = torch.empty(tensor.shape, dtype=getattr(torch, tensor.dtype))
    for chunk in tensor.chunks:
        target = whole
        for dim, (start, length) in enumerate(zip(chunk.offset, chunk.shape, strict=True)):
            target = target.narrow(dim, start, length)
        target.copy_(box(path, manifest, tensor, chunk))
    return whole


def _known(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise files.DamagedCheckpoint(f"{name} is missing")
    return tensors[name]
