"""Text to a corpus: ``PREFIX.bin``, ``PREFIX.idx``, ``PREFIX.json`` and ``tokenizer.json`` beside them.

The same input gives the same bytes. Memory does not grow with the text, except for 4 bytes per document.
A few lines of our own (corpus) write the index. The import of megatron-core's builder would need torch and
take longer than preparing a small corpus.
"""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.parallelism.corpus import CorpusInfo, read_info, write_index
from frontrunner.parallelism.runtime.data.folders import find_files
from frontrunner.parallelism.runtime.data.records import TEXT_KEYS, check_share
from frontrunner.parallelism.runtime.data.sources import Documents
from frontrunner.parallelism.runtime.data.tokenizer import (
    Encoder,
    byte_encoder,
    file_encoder,
    trained_encoder,
)

_BATCH_CHARACTERS_PER_CPU = 2**20  # an encoded token takes about 100 bytes until it is written
Progress = Callable[[str, int, int], None]  # stage, bytes read, bytes in all


@dataclass(frozen=True)
class Prepared:
    info: CorpusInfo
    outputs: list[Path]
    warnings: list[str]


def prepare(
    inputs: Sequence[str],
    prefix: str,
    *,
    tokenizer: str,
    json_key: str | None = None,
    suffixes: Sequence[str] | None = None,
    end_token: str | None = None,
    replace: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> Prepared:
    """Prepare a corpus. A failure leaves nothing behind.

    ``tokenizer`` is a path to a tokenizer.json, ``byte``, or ``train:N``. ``json_key`` is the key of a
    record's text (None: ``text``, else ``content``). Raises SpecError for input that cannot be used, or of
    which most cannot, and if there is a corpus with this prefix, unless ``replace`` is set.
    """
    _check_prefix(prefix)
    if not replace:
        _refuse_to_replace(prefix)
    found = find_files(inputs, suffixes)
    documents = Documents(found.files, json_key)
    encoder = _encoder(tokenizer, end_token, documents, on_progress)
    with _scratch(Path(prefix).parent) as folder:
        _refuse_to_orphan(prefix, encoder)
        work = folder / "corpus"
        info = _write(work, encoder, documents, on_progress, tokenizer, list(inputs))
        work.with_suffix(".json").write_text(info.model_dump_json(indent=2) + "\n")
        (folder / "tokenizer.json").write_bytes(encoder.json)
        outputs = _publish(folder, prefix)
    return Prepared(info, outputs, [*found.notes, *documents.notes, *_warnings(documents)])


def _check_prefix(prefix: str) -> None:
    path = Path(prefix)
    problem = None
    if prefix.endswith(("/", os.sep)) or path.is_dir() or not path.name:
        problem = "is a folder"
    elif path.suffix in (".bin", ".idx", ".json"):
        problem = f"must not end in {path.suffix}, which is added to the prefix"
    elif path.name == "tokenizer":
        problem = "would overwrite tokenizer.json with its description"
    if problem:
        raise SpecError([Violation("--output", prefix, problem, "give a prefix, for example corpus/train")])


def _refuse_to_replace(prefix: str) -> None:
    there = [path for ending in ("idx", "bin") if (path := Path(f"{prefix}.{ending}")).exists()]
    if there:
        problem = f"{there[0]} exists: runs that were trained on it could not go on"
        fix = "choose another prefix, or replace it with --force"
        raise SpecError([Violation("--output", prefix, problem, fix)])


def _encoder(source: str, end_token: str | None, documents: Documents, on_progress: Progress) -> Encoder:
    kind, _, size = source.partition(":")
    if source != "byte" and (kind != "train" or Path(source).exists()):
        return file_encoder(Path(source), end_token)
    if end_token is not None:
        problem = f"is for a tokenizer.json: {source} has an end token of its own"
        raise SpecError([Violation("--end-token", end_token, problem, "omit it")])
    if source == "byte":
        return byte_encoder()
    if not (size.isascii() and size.isdigit() and len(size) < 10):
        fix = "write train:N with the vocabulary size, for example train:8192"
        raise SpecError([Violation("--tokenizer", source, "has no valid size", fix)])
    texts = _reporting(documents, documents, "training the tokenizer", on_progress)
    return trained_encoder(int(size), texts, documents.total_bytes)


def _write(
    work: Path, encoder: Encoder, documents: Documents, on_progress: Progress, source: str, inputs: list[str]
) -> CorpusInfo:
    # the rule of megatron-core's DType.optimal_dtype
    dtype = np.dtype(np.uint16 if encoder.vocab_size < 65500 else np.int32)
    with work.with_suffix(".bin").open("wb") as file:
        batches = _batches(_reporting(documents, documents, "tokenising", on_progress))
        lengths, max_token = _write_tokens(file, encoder, batches, dtype)
    check_share(documents.counts)
    if not lengths:
        fix = "give files that hold text"
        raise SpecError([Violation("--input", " ".join(inputs), "no documents: every file is empty", fix)])
    counts = np.frombuffer(lengths, np.int32)
    write_index(work.with_suffix(".idx"), dtype, counts)
    return CorpusInfo(
        tokenizer="tokenizer.json",
        tokenizer_sha256=sha256(encoder.json).hexdigest(),
        tokenizer_source=source,
        vocab_size=encoder.vocab_size,
        end_token=encoder.end_token,
        end_token_id=encoder.end_token_id,
        max_token=max_token,
        dtype=dtype.name,
        documents=len(lengths),
        tokens=int(counts.sum(dtype=np.int64)),
        input_bytes=documents.total_bytes,
        undecodable_bytes=documents.counts.undecodable_bytes,
        empty_documents=documents.counts.empty_documents,
        damaged_records=documents.counts.damaged_records,
        records_without_text=documents.counts.records_without_text,
        inputs=inputs,
    )


def _write_tokens(
    file: BinaryIO, encoder: Encoder, batches: Iterable[list[str]], dtype: np.dtype[Any]
) -> tuple[array[int], int]:
    """Write each document and its end token; return each document's token count and the largest token."""
    lengths, largest = array("i"), encoder.end_token_id
    for batch in batches:
        for ids in encoder.encode(batch):
            tokens = np.array([*ids, encoder.end_token_id], dtype)
            file.write(tokens.tobytes())
            lengths.append(len(tokens))
            largest = max(largest, int(tokens.max()))
    return lengths, largest


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    limit = _BATCH_CHARACTERS_PER_CPU * (os.cpu_count() or 1)
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= limit:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _reporting(
    texts: Iterable[str], documents: Documents, stage: str, on_progress: Progress
) -> Iterator[str]:
    for text in texts:
        yield text
        on_progress(stage, documents.bytes_read, documents.total_bytes)
    on_progress(stage, documents.total_bytes, documents.total_bytes)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder next to the outputs, so that they are moved, not copied; removed at the end.

    Folders that were made for the outputs are removed too if there are none.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".prepare-") as scratch:
            yield Path(scratch)
    except OSError as error:
        fix = "free some space or give a writable folder"
        reason = (
            "is not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        )
        raise SpecError(
            [Violation("--output", str(folder), f"cannot write to {folder} ({reason})", fix)]
        ) from error
    finally:
        with suppress(OSError):  # not empty
            for place in made:
                place.rmdir()


def _refuse_to_orphan(prefix: str, encoder: Encoder) -> None:
    """Raise SpecError if this would replace the tokenizer.json of another corpus in the same folder."""
    existing = Path(prefix).parent / "tokenizer.json"
    if not existing.exists() or existing.read_bytes() == encoder.json:
        return
    digest = sha256(existing.read_bytes()).hexdigest()
    for index in sorted(existing.parent.glob("*.idx")):
        other = str(index.with_suffix(""))
        info = None if Path(other) == Path(prefix) else read_info(other)
        if info is not None and info.tokenizer_sha256 == digest:
            problem = f"would replace {existing}, which made the corpus {other}"
            fix = f"give a prefix in another folder, or --tokenizer {existing} to share it"
            raise SpecError([Violation("--output", prefix, problem, fix)])


def _publish(folder: Path, prefix: str) -> list[Path]:
    """Move the outputs to their names. The old index is removed first and the new one moved last, so a
    corpus that was only partly moved has no index and cannot be read."""
    target = {ending: Path(f"{prefix}.{ending}") for ending in ("bin", "json", "idx")}
    tokenizer = Path(prefix).parent / "tokenizer.json"
    target["idx"].unlink(missing_ok=True)
    (folder / "tokenizer.json").replace(tokenizer)
    for ending, path in target.items():
        (folder / f"corpus.{ending}").replace(path)
    return [target["bin"], target["idx"], target["json"], tokenizer]


def _warnings(documents: Documents) -> list[str]:
    counts = documents.counts
    first, second = TEXT_KEYS
    said = (
        (counts.damaged_records, "damaged JSON lines skipped", f"the first: {counts.first_damaged}"),
        (
            counts.records_without_text,
            "records without text skipped",
            f"the first: {counts.first_without_text}",
        ),
        (counts.from_second_key, f"records without {first!r}, whose {second!r} was taken", ""),
        (
            counts.undecodable_bytes,
            "bytes that cannot be decoded, replaced by U+FFFD",
            f"the first in {counts.first_undecodable}",
        ),
        (counts.null_characters, "NUL characters in the texts, which are kept", ""),
        (counts.empty_documents, "empty documents skipped", ""),
    )
    return [f"{what}: {count:,}{f' ({more})' if more else ''}" for count, what, more in said if count]
