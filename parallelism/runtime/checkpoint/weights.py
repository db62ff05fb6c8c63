"""The weights of a checkpoint, without a run: reads them one by one, and writes them from other sources."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.runtime.checkpoint.pieces import WEIGHTS
from frontrunner.parallelism.runtime.checkpoint.storage import whole_tensor
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.checkpoints import Chunk, File, Manifest, Tensor


def read_weights(path: Path) -> tuple[ModelSpec, Callable[[str], torch.Tensor]]:
    """The model of a checkpoint, and a function from a parameter's global name to its float32 values."""
    manifest = files.read_manifest(path)
    model = ModelSpec.model_validate(manifest.spec["model"])
    return model, lambda name: whole_tensor(path, manifest, f"{WEIGHTS}/{name}")


def write_weights(run_dir: Path, model: ModelSpec, parameters: Iterable[tuple[str, torch.Tensor]]) -> Path:
    """A checkpoint of step 0 with these parameters (global name, float32 values of the full shape).

    Only one is in memory at a time. Returns the checkpoint, from which a run can start.
    """
    path = files.path_of(run_dir, 0)
    folder = files.unfinished(path)
    folder.mkdir(parents=True)
    tensors, position, crc32 = {}, 0, 0
    with (folder / "rank-0.bin").open("wb") as file:
        for name, values in parameters:
            content = values.to(torch.float32).contiguous().flatten().view(torch.uint8).numpy().data
            file.write(content)
            shape = tuple(values.shape)
            chunk = Chunk((0,) * len(shape), shape, 0, position)
            tensors[f"{WEIGHTS}/{name}"] = Tensor("float32", shape, (chunk,))
            position += len(content)
            crc32 = zlib.crc32(content, crc32)
        file.flush()
        os.fsync(file.fileno())
    state: dict[str, Any] = {"samples": 0, "updates": 0, "loss_scale": 1.0, "good_steps": 0, "bad_steps": 0}
    state["first_validation_loss"] = None
    written = (File("rank-0.bin", position, crc32),)
    files.write_manifest(
        folder, Manifest(0, {"model": model.model_dump(mode="json")}, state, written, tensors)
    )
    files.commit(path)
    return path
