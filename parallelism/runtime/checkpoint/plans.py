"""Who writes and reads which box: planners of torch.distributed.checkpoint over lists of pieces.

A state dict here is ``{"pieces": [...]}``. A rank writes the same boxes at each checkpoint, so plans are sent
to the coordinator only once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from frontrunner.parallelism.runtime.checkpoint.pieces import Piece
from frontrunner.run_folder.checkpoints import Chunk, DamagedCheckpoint, Tensor

PIECES = "pieces"


class PieceSavePlanner(SavePlanner):
    """Plans the same pieces every time; ``tensors`` is the content of the coordinator's manifest."""

    def __init__(self) -> None:
        self.pieces: dict[MetadataIndex, Piece] = {}
        self.tensors: dict[str, Tensor] = {}
        self._plan: SavePlan | None = None

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: object = None, is_coordinator: bool = False
    ) -> None:
        self.pieces = {MetadataIndex(piece.name, piece.offset): piece for piece in state_dict[PIECES]}

    def create_local_plan(self) -> SavePlan:
        if self._plan is not None:
            return SavePlan([], usable=False)
        return SavePlan([_write_item(index, piece) for index, piece in self.pieces.items()])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        if all(plan.usable for plan in all_plans):
            self.tensors = _place(all_plans)
        return [SavePlan([], usable=False)] * len(all_plans), Metadata({})

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        if self._plan is None:
            self._plan = SavePlan([_write_item(index, piece) for index, piece in self.pieces.items()])
        return self._plan

    def resolve_data(self, write_item: WriteItem) -> torch.Tensor:
        return self.pieces[write_item.index].values


class PieceLoadPlanner(LoadPlanner):
    """Fills pieces from any saved boxes of their tensors."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.pieces: dict[MetadataIndex, Piece] = {}

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        self.pieces = {MetadataIndex(piece.name, piece.offset): piece for piece in state_dict[PIECES]}

    def create_local_plan(self) -> LoadPlan:
        by_name: dict[str, list[Piece]] = {}
        for piece in self.pieces.values():
            by_name.setdefault(piece.name, []).append(piece)
        return LoadPlan([item for name, pieces in by_name.items() for item in self._reads(name, pieces)])

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: object) -> None:
        raise AssertionError("pieces are tensors")

    def resolve_tensor(self, read_item: ReadItem) -> torch.Tensor:
        values = self.pieces[read_item.dest_index].values
        for dim, (start, length) in enumerate(zip(read_item.dest_offsets, read_item.lengths, strict=True)):
            values = values.narrow(dim, start, length)
        return values

    def commit_tensor(self, read_item: ReadItem, tensor: torch.Tensor) -> None:
        """Nothing to do: the resolved tensor is a view of the state itself."""

    def _reads(self, name: str, pieces: Sequence[Piece]) -> list[ReadItem]:
        """How to fill the pieces of one tensor. Raises DamagedCheckpoint if the saved boxes have gaps."""
        saved = self.tensors.get(name)
        if saved is None or saved.shape != pieces[0].shape:
            held = "is missing" if saved is None else f"has shape {list(saved.shape)}"
            raise DamagedCheckpoint(f"{name} {held}, but the run needs shape {list(pieces[0].shape)}")
        chunks = [ChunkStorageMetadata(torch.Size(c.offset), torch.Size(c.shape)) for c in saved.chunks]
        metadata = TensorStorageMetadata(TensorProperties(), torch.Size(saved.shape), chunks)
        wanted = [ChunkStorageMetadata(torch.Size(piece.offset), piece.values.shape) for piece in pieces]
        items = create_read_items_for_chunk_list(name, metadata, wanted)
        if sum(item.lengths.numel() for item in items) != sum(piece.values.numel() for piece in pieces):
            raise DamagedCheckpoint(f"{name} is incomplete")
        return items


def _write_item(index: MetadataIndex, piece: Piece) -> WriteItem:
    chunk = ChunkStorageMetadata(torch.Size(piece.offset), piece.values.shape)
    properties = TensorProperties(dtype=piece.values.dtype)
    return WriteItem(
        index, WriteItemType.SHARD, None, TensorWriteData(chunk, properties, torch.Size(piece.shape))
    )


def _place(plans: Sequence[SavePlan]) -> dict[str, Tensor]:
    """Where each box will be: the file of rank r has its items in the order of its plan, without gaps."""
    tensors: dict[str, tuple[str, tuple[int, ...], list[Chunk]]] = {}
    for rank, plan in enumerate(plans):
        position = 0
        for item in plan.items:
            data = item.tensor_data
            assert data is not None
            dtype = data.properties.dtype
            chunk = Chunk(tuple(data.chunk.offsets), tuple(data.chunk.sizes), rank, position)
            position += data.chunk.sizes.numel() * dtype.itemsize
            tensors.setdefault(item.index.fqn, (str(dtype).removeprefix("torch."), tuple(data.size), []))[
                2
            ].append(chunk)
    return {name: Tensor(dtype, shape, tuple(chunks)) for name, (dtype, shape, chunks) in tensors.items()}
