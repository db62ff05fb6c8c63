"""Writes a folder that transformers reads: ``config.json``, weights and, if given, the tokenizer."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import ModelSpec
from frontrunner.configs.to_huggingface import config_of
from frontrunner.parallelism.runtime.data.tokenizer import Encoder, file_encoder
from frontrunner.parallelism.runtime.huggingface.mapping import Get, entries, to_huggingface

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_BYTES = 5_000_000_000


def write_folder(
    model: ModelSpec,
    get: Get,
    folder: Path,
    dtype: torch.dtype,
    *,
    tokenizer: Path | None = None,
    end_token: str | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write a model whose full parameters ``get`` returns; return the files.

    The folder appears complete or not at all: it is written next to its place under another name. Weights are
    float32, bfloat16 or float16. They go to one file, or to several of at most ``shard_bytes`` (a larger
    tensor gets its own file), one of them in memory at a time. ``tokenizer`` is a tokenizer.json;
    ``end_token`` is the token that ended its documents, if its name is unusual.

    Raises SpecError if no transformers family can express the model, the folder is not empty, or the
    tokenizer has more tokens than the model; OSError if the disk refuses.
    """
    _check_free(folder)
    encoder = _encoder(tokenizer, end_token, model)
    name = str(dtype).removeprefix("torch.")
    texts = {"config.json": _json(config_of(model, name, encoder.end_token_id if encoder else None))}
    shards = _plan(model, dtype.itemsize, shard_bytes)
    if encoder:
        texts["tokenizer.json"] = encoder.json
        texts["tokenizer_config.json"] = _json(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": encoder.end_token,
                "model_max_length": model.max_position_embeddings,
            }
        )
    if len(shards) > 1:
        texts[INDEX] = _index(model, dtype.itemsize, shards)
    beside = folder.absolute().with_name(f"{folder.absolute().name}.{os.getpid()}.partial")
    beside.mkdir(parents=True)
    try:
        _write_shards(to_huggingface(model, get), beside, shards, dtype)
        for file, text in texts.items():
            (beside / file).write_bytes(text)
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return [folder / file for file in (*texts, *shards)]


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()) or not os.path.lexists(folder):
        return
    what = "is not empty" if folder.is_dir() else "is a file"
    raise SpecError([Violation("", None, what, "give a new folder, or remove this one", str(folder))])


def _encoder(tokenizer: Path | None, end_token: str | None, model: ModelSpec) -> Encoder | None:
    encoder = None if tokenizer is None else file_encoder(tokenizer, end_token)
    if encoder and encoder.vocab_size > model.vocab_size:
        what = f"its {encoder.vocab_size} tokens exceed the model's vocab_size {model.vocab_size}"
        fix = "give the tokenizer that the model was trained with"
        raise SpecError([Violation("--tokenizer", str(tokenizer), what, fix)])
    return encoder


def _json(tree: object) -> bytes:
    return (json.dumps(tree, indent=2) + "\n").encode()


def _sizes(model: ModelSpec, itemsize: int) -> Iterator[tuple[str, int]]:
    """Names of the tensors and their bytes, in the order of writing."""
    for entry in entries(model):
        for name, shape in entry.their_shapes():
            yield name, torch.Size(shape).numel() * itemsize


def _plan(model: ModelSpec, itemsize: int, shard_bytes: int) -> dict[str, list[str]]:
    """The tensors of each file, in order."""
    groups: list[list[str]] = [[]]
    room = shard_bytes
    for name, size in _sizes(model, itemsize):
        if size > room and groups[-1]:
            groups.append([])
            room = shard_bytes
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {SINGLE: groups[0]}
    count = len(groups)
    return {f"model-{i:05}-of-{count:05}.safetensors": group for i, group in enumerate(groups, 1)}


def _index(model: ModelSpec, itemsize: int, shards: dict[str, list[str]]) -> bytes:
    where = {name: file for file, names in shards.items() for name in names}
    total = sum(size for _, size in _sizes(model, itemsize))
    return _json({"metadata": {"total_size": total}, "weight_map": where})


def _write_shards(
    tensors: Iterator[tuple[str, Tensor]], folder: Path, shards: dict[str, list[str]], dtype: torch.dtype
) -> None:
    for file, names in shards.items():
        held: dict[str, Tensor] = {}
        for expected in names:
            name, tensor = next(tensors)
            assert name == expected
            # Copy even if the type is unchanged: safetensors refuses tensors that share storage.
            held[name] = tensor.detach().to("cpu", dtype, copy=True, memory_format=torch.contiguous_format)
        try:
            save_file(held, folder / file, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(errno.EIO, str(error), str(folder / file)) from error
