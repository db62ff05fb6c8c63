"""Reads documents from text files and JSON records, in a fixed order and one at a time."""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import open_plain
from frontrunner.parallelism.runtime.data import kinds
from frontrunner.parallelism.runtime.data.folders import (
    COMPRESSED_SUFFIXES,
    JSON_SUFFIXES,
    TEXT_SUFFIXES,
    plain_name,
)
from frontrunner.parallelism.runtime.data.kinds import NotText
from frontrunner.parallelism.runtime.data.records import TEXT_KEYS, Counts, Records
from frontrunner.parallelism.runtime.data.unpack import DAMAGED, unpacked

_PART_CHARACTERS = 2**18
_SURROGATE = re.compile("[\ud800-\udfff]")
_ARRAY = re.compile(r'\[\s*\{\s*"')
_MARKED = "frontrunner-mark-undecodable"
_MARKUP = {".csv", ".tsv", ".xml", ".html", ".htm", ".tex", ".yaml", ".yml", ".ipynb", ".srt"}
_MOST_REFUSED = 10
# surrogateescape, which marks each undecodable byte for counting, works for UTF-8 only
codecs.register_error(
    _MARKED,
    lambda error: ("\udcff" * (error.end - error.start), error.end),  # type: ignore[attr-defined]
)


@dataclass(frozen=True)
class Source:
    """A file and how to read it: its compressed form and encoding, and whether it holds records."""

    path: Path
    size: int
    form: str | None
    encoding: str
    content: str
    """``text``, ``lines`` (JSON lines) or ``array`` (a JSON array)."""


class Documents:
    """The documents of some files, in order; each iteration restarts the counts.

    A record (a JSON line, an element of a JSON array) is one document. A text file is one document, or
    several if it is longer than 262,144 characters. It is then cut at line ends, so that memory stays bounded
    and one long file can still be split into training and validation. Files compressed by gzip, bzip2, xz and
    zstd are unpacked, whatever their names. Bytes that cannot be decoded become U+FFFD and are counted; empty
    documents, damaged lines and records without a text are dropped and counted. ``notes`` say what
    is unusual.

    SpecError names files that hold no text, by what they are: all of them at once.
    """

    def __init__(self, files: Sequence[Path], json_key: str | None = None) -> None:
        self._keys = TEXT_KEYS if json_key is None else (json_key,)
        self.notes: list[str] = []
        self.counts = Counts()
        self.bytes_read = 0
        violations: list[Violation] = []
        self._sources: list[Source] = []
        for path in files:
            try:
                self._sources.append(self._source(path))
            except NotText as error:
                violations.append(_refusal(path, error))
            except DAMAGED as error:
                violations += _unreadable(path, error).violations
        if violations:
            raise SpecError(_first_of(violations))
        self.total_bytes = sum(source.size for source in self._sources)

    def __iter__(self) -> Iterator[str]:
        self.bytes_read, self.counts = 0, Counts()
        for source in self._sources:
            before = self.bytes_read
            try:
                with open_plain(source.path) as raw:
                    yield from self._of_file(source, raw, before)
            except NotText as error:
                raise SpecError([_refusal(source.path, error)]) from error
            except DAMAGED as error:
                raise _unreadable(source.path, error) from error
            self.bytes_read = before + source.size

    def _of_file(self, source: Source, raw: BinaryIO, before: int) -> Iterator[str]:
        counts, characters = self.counts, 0
        replaced = counts.undecodable_bytes
        for text in self._texts(source, raw):
            self.bytes_read = before + raw.tell()
            characters += len(text)
            if text := self._clean(source.path, text):
                yield text
            else:
                counts.empty_documents += 1
        replaced = counts.undecodable_bytes - replaced
        if kinds.too_many(replaced, characters):
            what = f"{replaced:,} of its bytes cannot be decoded, after a beginning that can"
            raise SpecError([_refusal(source.path, NotText(f"not text to its end: {what}", "repair it"))])

    def _texts(self, source: Source, raw: BinaryIO) -> Iterator[str]:
        errors = "surrogateescape" if source.encoding.startswith("utf-8") else _MARKED
        stream = unpacked(raw, source.form)
        text = io.TextIOWrapper(stream, encoding=source.encoding, errors=errors, newline="\n")
        records = Records(source.path, self._keys, self.counts)
        if source.content == "lines":
            return records.of_lines(text)
        return records.of_array(text) if source.content == "array" else _parts(text)

    def _clean(self, path: Path, text: str) -> str:
        text, replaced = _SURROGATE.subn("\ufffd", text)
        counts = self.counts
        if replaced and counts.first_undecodable is None:
            counts.first_undecodable = path
        counts.undecodable_bytes += replaced
        counts.null_characters += text.count("\x00")
        return text

    def _source(self, path: Path) -> Source:
        """How to read a file, by its first bytes and, for records, its name; NotText if it holds no text."""
        with open_plain(path) as raw:
            size = path.stat().st_size
            head = raw.read(kinds.HEAD)
            form = kinds.compression(head)
            if form is not None:
                raw.seek(0)
                head = unpacked(raw, form).read(kinds.HEAD)
        if kinds.compression(head):
            raise NotText(f"compressed twice, by {kinds.compression(head)} inside {form}", "unpack it first")
        encoding = kinds.encoding(head, path)
        if form is None and head and path.suffix.lower() in COMPRESSED_SUFFIXES:
            self.notes.append(f"{path} is not compressed, and is read as it is")
        start = head.decode(encoding, "replace").lstrip()
        return Source(path, size, form, encoding, self._content(path, start))

    def _content(self, path: Path, start: str) -> str:
        suffix = plain_name(path).suffix.lower()
        if suffix in JSON_SUFFIXES:
            return "array" if start.startswith("[") else "lines"
        if suffix not in (*TEXT_SUFFIXES, *_MARKUP) and _ARRAY.match(start):
            return "array"
        if _is_record(start):
            if suffix not in (*TEXT_SUFFIXES, *_MARKUP):
                return "lines"
            self.notes.append(f"{path} looks like JSON lines, but is read as text for its name ({suffix})")
        elif suffix in _MARKUP or start.startswith(("<?xml", "<!DOCTYPE", "<html", "<mediawiki")):
            self.notes.append(f"{path} is read as plain text, with its markup")
        return "text"


def _is_record(start: str) -> bool:
    """Whether a text's first line is a JSON object, or begins like one and is longer than ``start``."""
    line, end, _ = start.partition("\n")
    if not end and len(start) > kinds.HEAD // 8:
        return start.startswith('{"')
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _parts(text: io.TextIOWrapper) -> Iterator[str]:
    part = text.read(_PART_CHARACTERS)
    if not part:
        yield ""
    while part:
        # without line ends, cut anywhere
        yield part if part.endswith("\n") else part + text.readline(_PART_CHARACTERS)
        part = text.read(_PART_CHARACTERS)


def _refusal(path: Path, error: NotText) -> Violation:
    return Violation("--input", str(path), f"{path} is {error.what}", error.fix)


def _first_of(violations: list[Violation]) -> list[Violation]:
    more = len(violations) - _MOST_REFUSED
    if more <= 0:
        return violations
    rest = Violation("--input", None, f"{more:,} more files cannot be read", "see the first ones")
    return [*violations[:_MOST_REFUSED], rest]


def _unreadable(path: Path, error: BaseException) -> SpecError:
    problem = getattr(error, "strerror", None) or str(error)
    fix = "make it readable or remove it from --input"
    return SpecError([Violation("--input", str(path), f"{path} cannot be read ({problem})", fix)])
