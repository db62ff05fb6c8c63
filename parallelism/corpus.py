"""Reads and checks the files of a prepared corpus, without torch.

A corpus is ``PREFIX.bin`` (the tokens, one after the other) and ``PREFIX.idx`` in Megatron's format:
little-endian magic ``MMIDIDX\\0\\0``, version (uint64, 1), type code (uint8), number of sequences and
of document marks (uint64 each), then tokens per sequence (int32), byte offset of each sequence
(int64), first sequence of each document followed by the number of sequences (int64). ``frontrunner data
prepare`` also writes ``PREFIX.json`` (:class:`CorpusInfo`); corpora made by Megatron's own tools lack it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from frontrunner.configs.data import DataSpec
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import open_plain, read_plain
from frontrunner.configs.schema import RunSpec

Split = Literal["train", "validation"]

_MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}  # 6 and 7 are floats
_CHUNK_TOKENS = 2**22
_LARGEST_INFO = 2**26
_FEW = 2**16  # sequences that may be read whatever the tokens: too few to fill the memory
LARGEST_TOKENIZER = 2**28  # bytes; those of large models have 2**25
_SCAN_TOKENS = 2**28  # limit for a corpus without PREFIX.json; samples are checked again when read


class CorpusInfo(BaseModel):
    """What ``PREFIX.json`` says about a corpus. ``tokenizer`` is a file name in the corpus folder."""

    model_config = ConfigDict(frozen=True, strict=True)

    tokenizer: str
    tokenizer_sha256: str
    tokenizer_source: str
    vocab_size: int
    end_token: str
    end_token_id: int
    max_token: int
    dtype: str
    documents: int
    tokens: int
    input_bytes: int
    undecodable_bytes: int
    empty_documents: int
    damaged_records: int = 0
    records_without_text: int = 0
    inputs: list[str]


@dataclass(frozen=True)
class CorpusIndex:
    """A valid index: ``lengths`` [sequences] in tokens; ``documents`` [documents + 1] holds the first
    sequence of each document, then the number of sequences."""

    prefix: str
    dtype: np.dtype[Any]
    lengths: NDArray[np.int32]
    documents: NDArray[np.int64]

    @property
    def num_documents(self) -> int:
        return len(self.documents) - 1

    def sequences(self, split: Split, validation_fraction: float) -> range:
        """The sequences of a split. The last ``validation_fraction`` of the documents (rounded, at least
        one unless it is 0) are for validation, the others for training."""
        held_out = round(self.num_documents * validation_fraction)
        if validation_fraction > 0:
            held_out = max(held_out, 1)
        border = int(self.documents[max(self.num_documents - held_out, 0)])
        return range(border) if split == "train" else range(border, len(self.lengths))

    def tokens_in(self, sequences: range) -> int:
        return int(self.lengths[sequences.start : sequences.stop].sum(dtype=np.int64))

    def token_chunks(self, sequences: range, limit: int) -> Iterator[NDArray[Any]]:
        """Copies of the tokens of ``sequences``, in chunks. If there are more than ``limit``, an evenly
        spread sample of about that many."""
        first, count = self.tokens_in(range(sequences.start)), self.tokens_in(sequences)
        if count == 0:
            return
        stream = np.memmap(f"{self.prefix}.bin", dtype=self.dtype, mode="r")[first : first + count]
        stride = max(1, count // limit) * _CHUNK_TOKENS
        for start in range(0, count, stride):
            yield np.array(stream[start : start + _CHUNK_TOKENS])


def write_index(path: Path, dtype: np.dtype[Any], lengths: NDArray[np.int32]) -> None:
    """Write the index of a corpus in which each document is one sequence."""
    code = next(code for code, name in _DTYPES.items() if name == dtype.name)
    count = len(lengths)
    ends = np.cumsum(lengths, dtype=np.int64) * dtype.itemsize
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, 1, code, count, count + 1))
        file.write(lengths.astype("<i4").tobytes())
        file.write((ends - lengths.astype(np.int64) * dtype.itemsize).astype("<i8").tobytes())
        file.write(np.arange(count + 1, dtype="<i8").tobytes())


def read_index(prefix: str) -> CorpusIndex:
    """Read ``PREFIX.idx``, check all of it, and compare it with the size of ``PREFIX.bin``.

    Raises SpecError (dotted path ``data.train``).
    """
    idx, bin_ = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    sizes = _sizes(prefix, idx, bin_)
    try:
        with open_plain(idx) as file:
            header = file.read(_HEADER.size)
            dtype, sequences, marks = _parse_header(prefix, idx, header)
            expected = _HEADER.size + 12 * sequences + 8 * marks
            if sizes[0] != expected:
                wrong = "truncated" if sizes[0] < expected else "corrupt"
                raise _bad(
                    prefix, f"{idx} is {wrong}: it has {sizes[0]:,} bytes, but its header says {expected:,}"
                )
            tokens = sizes[1] // dtype.itemsize
            if max(sequences, marks - 2) > max(
                tokens, _FEW
            ):  # before reading: a sparse file costs its writer nothing
                what = f"{sequences:,} sequences and {marks:,} marks of documents"
                raise _bad(prefix, f"{idx} is corrupt: {what} for the {tokens:,} tokens of {bin_}")
            lengths = np.fromfile(file, "<i4", sequences)
            offsets = np.fromfile(file, "<i8", sequences)
            documents = np.fromfile(file, "<i8", marks)
    except OSError as error:
        raise unreadable(prefix, idx, error) from error
    index = CorpusIndex(prefix, dtype, lengths, documents)
    _check_arrays(index, idx, offsets)
    described = index.tokens_in(range(sequences)) * dtype.itemsize
    if sizes[1] != described:
        raise _bad(prefix, f"{bin_} has {sizes[1]:,} bytes, but {idx} describes {described:,}")
    return index


def read_info(prefix: str) -> CorpusInfo | None:
    """Read ``PREFIX.json``; None if it does not exist. Raises SpecError if its content is invalid."""
    path = Path(f"{prefix}.json")
    try:
        return CorpusInfo.model_validate_json(read_plain(path, _LARGEST_INFO))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(prefix, path, error) from error
    except ValidationError as error:
        raise _bad(prefix, f"{path} is not a corpus description ({error.error_count()} errors)") from error


def is_here(data: DataSpec) -> bool:
    """Whether any file of the corpus is on this machine."""
    return any(Path(f"{data.train}{ending}").exists() for ending in (".bin", ".idx"))


def check_data(spec: RunSpec) -> None:
    """Raise SpecError unless the corpus can feed this run.

    Its files must be complete, its splits must hold one sample of ``seq_len + 1`` tokens, its tokens must fit
    the model's vocabulary, and the tokenizer must be the one that made it. The check is quick for any corpus:
    it reads at most 268 million tokens, or none if ``PREFIX.json`` exists.
    """
    data = spec.data
    if data == "synthetic":
        return
    index, info = read_index(data.train), read_info(data.train)
    if info is not None and (info.documents, info.tokens) != (
        index.num_documents,
        index.tokens_in(range(len(index.lengths))),
    ):
        raise _bad(data.train, f"{data.train}.json and {data.train}.idx describe different corpora")
    violations = [*_short_splits(spec, data, index), *_tokenizer_faults(data, info)]
    violations += _vocabulary_faults(spec, data, index, info)
    if violations:
        raise SpecError(violations)


def _sizes(prefix: str, *paths: Path) -> list[int]:
    sizes: list[int] = []
    violations: list[Violation] = []
    for path in paths:
        try:
            if not path.is_file():
                raise FileNotFoundError(2, "no such file")
            sizes.append(path.stat().st_size)
        except OSError as error:
            violations += unreadable(prefix, path, error).violations
    if violations:
        raise SpecError(violations)
    return sizes


def _parse_header(prefix: str, idx: Path, header: bytes) -> tuple[np.dtype[Any], int, int]:
    if not header.startswith(_MAGIC):
        raise _bad(prefix, f"{idx} is not a Megatron index: it starts with {header[:9]!r}, not {_MAGIC!r}")
    if len(header) < _HEADER.size:
        raise _bad(prefix, f"{idx} is truncated: it has {len(header)} bytes, the header alone {_HEADER.size}")
    _, version, code, sequences, marks = _HEADER.unpack(header)
    if version != 1 or code not in _DTYPES:
        raise _bad(
            prefix, f"{idx} has version {version} and type code {code}, not version 1 and an integer type"
        )
    return np.dtype(_DTYPES[code]), sequences, marks


def _check_arrays(index: CorpusIndex, idx: Path, offsets: NDArray[np.int64]) -> None:
    lengths, documents = index.lengths, index.documents
    if len(lengths) == 0 or not lengths.any():
        raise _bad(index.prefix, f"{idx} describes an empty corpus without tokens")
    ends = np.cumsum(lengths, dtype=np.int64)
    if (lengths < 0).any() or (offsets != (ends - lengths) * index.dtype.itemsize).any():
        raise _bad(index.prefix, f"{idx} is corrupt: its sequences are not contiguous in the .bin")
    if (
        len(documents) < 2
        or documents[0] != 0
        or documents[-1] != len(lengths)
        or (np.diff(documents) < 0).any()
    ):
        raise _bad(
            index.prefix, f"{idx} is corrupt: its documents do not cover its {len(lengths):,} sequences"
        )


def _short_splits(spec: RunSpec, data: DataSpec, index: CorpusIndex) -> Iterator[Violation]:
    need = spec.training.seq_len + 1
    splits: tuple[Split, ...] = (
        ("train", "validation") if spec.training.validation_samples > 0 else ("train",)
    )
    for split in splits:
        have = index.tokens_in(index.sequences(split, data.validation_fraction))
        if have < need:
            documents = f"{index.num_documents:,} document" + "s" * (index.num_documents != 1)
            yield Violation(
                "data.train",
                data.train,
                f"its {split} split has {have:,} tokens, but one sample takes training.seq_len + 1 ="
                f" {need:,} (the last {data.validation_fraction:.3g} of {documents}"
                " is for validation)",
                "prepare more text in more documents, lower training.seq_len or change"
                " data.validation_fraction (to skip validation, set data.validation_fraction: 0 and"
                " training.validation_samples: 0)",
            )


def _tokenizer_faults(data: DataSpec, info: CorpusInfo | None) -> Iterator[Violation]:
    if data.tokenizer is None:
        return
    try:
        digest = sha256(read_plain(Path(data.tokenizer), LARGEST_TOKENIZER)).hexdigest()
    except OSError as error:
        made = (
            f"use {Path(data.train).parent / info.tokenizer}" if info else "give the corpus's tokenizer.json"
        )
        yield Violation(
            "data.tokenizer", data.tokenizer, f"{data.tokenizer} cannot be read ({error.strerror})", made
        )
        return
    if info is not None and digest != info.tokenizer_sha256:
        yield Violation(
            "data.tokenizer",
            data.tokenizer,
            f"is not the tokenizer that made {data.train}"
            f" ({info.tokenizer_source}, {info.vocab_size:,} tokens)",
            "set the tokenizer that made the corpus, or prepare the corpus again with this one",
        )


def _vocabulary_faults(
    spec: RunSpec, data: DataSpec, index: CorpusIndex, info: CorpusInfo | None
) -> Iterator[Violation]:
    have = spec.model.vocab_size
    if info is not None:
        least, most = 0, info.max_token
    else:
        extremes = [(0, 0)]
        if not (index.dtype.kind == "u" and np.iinfo(index.dtype).max < have):
            chunks = index.token_chunks(range(len(index.lengths)), _SCAN_TOKENS)
            extremes = [(int(chunk.min()), int(chunk.max())) for chunk in chunks]
        least, most = min(low for low, _ in extremes), max(high for _, high in extremes)
    if least < 0:
        raise _bad(data.train, f"{data.train}.bin holds the negative token {least}")
    if most >= have:
        needed = max(most + 1, info.vocab_size if info else 0)
        yield Violation(
            "model.vocab_size",
            have,
            f"the corpus {data.train} holds the token {most:,}, but the model's largest is {have - 1:,}",
            f"set model.vocab_size to {needed}, or prepare the corpus with a tokenizer of at most"
            f" {have:,} tokens",
        )


def _bad(prefix: str, constraint: str) -> SpecError:
    again = f"prepare the corpus again: frontrunner data prepare --input PATHS --output {prefix}"
    return SpecError([Violation("data.train", prefix, constraint, again)])


def unreadable(prefix: str, path: Path, error: OSError) -> SpecError:
    """The error of a corpus file that cannot be read, with what to do."""
    fix = f"prepare a corpus with frontrunner data prepare --output {prefix}, or correct the prefix"
    for ending in (".bin", ".idx"):
        if prefix.endswith(ending):
            fix = f"write the prefix alone: {prefix.removesuffix(ending)}"
    return SpecError([Violation("data.train", prefix, f"cannot read {path} ({error.strerror})", fix)])
