"""Reads the model and weights of a folder that transformers or :mod:`write` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import load_model
from frontrunner.configs.plain_files import read_plain
from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.runtime.huggingface.mapping import Get, entries
from frontrunner.parallelism.runtime.huggingface.write import INDEX, SINGLE

# What some versions of transformers also saved: causal masks, and rotary frequencies.
_BUFFERS = re.compile(r"(.*\.)?(attn|attention)\.(bias|masked_bias)|.*\.rotary_emb\.inv_freq")
_FLOATS = ("BF16", "F16", "F32", "F64")
_SHOWN = 3
_LARGEST_INDEX = 2**28


def read_folder(folder: Path) -> tuple[ModelSpec, Get]:
    """The model, and a function from a tensor's name (as in ``mapping``) to its float32 values.

    Only the headers of the files are read before that function is called. Raises SpecError with everything
    that is wrong: a configuration that cannot be read or expressed, missing or damaged files, and tensors
    that are missing, superfluous, or of another shape or type than the configuration says.
    """
    if not (folder / "config.json").is_file():
        fix = "give a folder with config.json and model.safetensors, as saved by transformers"
        raise _wrong(folder, "holds no config.json", fix)
    model = load_model(str(folder / "config.json"))
    stored = _Stored(folder)
    names = stored.match(model)

    def get(name: str) -> Tensor:
        return stored.tensor(names[name]).to(torch.float32)

    return model, get


class _Stored:
    """The tensors of a folder, by their names there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, Any] = {}
        for path in _paths(folder):
            try:
                file: Any = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise _wrong(path, f"cannot be read ({error})", "download the file again") from error
            self.files |= dict.fromkeys(file.keys(), file)

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self.files[name].get_tensor(name)
        return tensor

    def match(self, model: ModelSpec) -> dict[str, str]:
        """The stored name of each tensor of the model. Raises SpecError if the folder holds another model."""
        if model.num_layers > len(self.files):
            what = f"holds {len(self.files):,} tensors for the {model.num_layers:,} layers of config.json"
            raise _wrong(self.folder, what, "use config.json and weights of the same model")
        shapes = dict(pair for entry in entries(model) for pair in entry.their_shapes())
        names = {name: next((s for s in _spellings(name) if s in self.files), "") for name in shapes}
        found: list[Violation] = []
        missing = [name for name, stored in names.items() if not stored]
        if missing:
            found.append(self._violation(missing, "is missing from the files, but config.json needs it"))
        used = {stored for stored in names.values() if stored} | self._output_copies(model, names)
        extra = [n for n in self.files if n not in used and not _BUFFERS.fullmatch(n)]
        if extra:
            found.append(self._violation(extra, "has no place in the model of config.json"))
        for name, stored in names.items():
            if stored:
                found += self._differences(stored, shapes[name])
        if found:
            raise SpecError(found)
        return names

    def _output_copies(self, model: ModelSpec, names: Mapping[str, str]) -> set[str]:
        """Tied output weights that are stored anyway: they must equal the embedding."""
        words = names[entries(model)[0].theirs[0]]
        if not model.tie_embeddings or not words:
            return set()
        copies = (name for name in _spellings("lm_head.weight") if name in self.files)
        return {name for name in copies if torch.equal(self.tensor(name), self.tensor(words))}

    def _differences(self, stored: str, shape: tuple[int, ...]) -> Iterable[Violation]:
        part = self.files[stored].get_slice(stored)
        if tuple(part.get_shape()) != shape:
            yield self._violation(
                [stored], f"has shape {part.get_shape()}, but config.json says {list(shape)}"
            )
        if part.get_dtype() not in _FLOATS:
            yield self._violation([stored], f"has type {part.get_dtype()}, not one of {', '.join(_FLOATS)}")

    def _violation(self, names: list[str], what: str) -> Violation:
        more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
        fix = "use config.json and weights of the same model"
        return Violation(", ".join(names[:_SHOWN]) + more, None, what, fix, str(self.folder))


def _spellings(name: str) -> tuple[str, ...]:
    """The names under which a tensor may be stored; the first is the one that we write.

    A model saved without its output layer has no prefix, like the original gpt2. transformers 5 calls
    gpt_neox's output layer lm_head.
    """
    if name in ("lm_head.weight", "embed_out.weight"):
        return ("lm_head.weight", "embed_out.weight")
    return (name, name.partition(".")[2])


def _paths(folder: Path) -> list[Path]:
    """The files that hold the weights; a single file is preferred, as in transformers."""
    index = folder / INDEX
    if (folder / SINGLE).is_file() or not index.is_file():
        paths = [folder / SINGLE]
    else:
        try:
            files = {
                str(file) for file in json.loads(read_plain(index, _LARGEST_INDEX))["weight_map"].values()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _wrong(index, "is not an index with a weight_map", "download the file again") from error
        outside = sorted(file for file in files if Path(file).name != file)
        if outside:
            raise _wrong(index, f"names {outside[0]}, which is not in its folder", "download the file again")
        paths = sorted(folder / file for file in files)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        fix = "save the model as safetensors with transformers' save_pretrained, or download the file"
        raise SpecError(Violation("", None, "the file does not exist", fix, str(path)) for path in missing)
    return paths


def _wrong(path: Path, what: str, fix: str) -> SpecError:
    return SpecError([Violation("", None, what, fix, str(path))])
