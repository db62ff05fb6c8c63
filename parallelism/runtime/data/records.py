"""JSON lines and JSON arrays: which part of a record is its text, and what is counted where it has none."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation

#: Keys of the text, the first that a record has. Most corpora say ``text``, collections of code ``content``.
TEXT_KEYS = ("text", "content")
_HOPELESS = 1000  # records of a file without one document
_CHUNK = 2**18
_LINE_CHARACTERS = 2**28
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass
class Counts:
    """What was counted while documents were read. ``first_...`` say where it first happened."""

    records: int = 0
    undecodable_bytes: int = 0
    first_undecodable: Path | None = None
    null_characters: int = 0
    empty_documents: int = 0
    damaged_records: int = 0
    first_damaged: str = ""
    records_without_text: int = 0
    first_without_text: str = ""
    from_second_key: int = 0

    @property
    def lost(self) -> int:
        return self.damaged_records + self.records_without_text


class Records:
    """The texts of the records of one file. A record without a text is counted, and so is a damaged line.

    SpecError names a file in which none of the first 1000 records, or of all, has a text, and an array
    that is damaged: nothing behind the damage can be found.
    """

    def __init__(self, path: Path, keys: Sequence[str], counts: Counts) -> None:
        self._path, self._keys, self._counts = path, keys, counts
        self._good = self._bad = 0
        self._unit = "line"
        self._first: tuple[int, str, str] | None = None  # line, problem, what to do

    def of_lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        lines = iter(lambda: text.readline(_LINE_CHARACTERS + 1), "")
        for number, line in enumerate(lines, start=1):
            if len(line) > _LINE_CHARACTERS:
                problem = f"this line has more than {_LINE_CHARACTERS:,} characters"
                raise SpecError(
                    [Violation("", None, problem, "write one document per line", str(self._path), number)]
                )
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                self._damaged(number, f"is not JSON ({error})")
            else:
                yield from self._text_of(record, number)
        self._check(at_end=True)

    def of_array(self, text: io.TextIOWrapper) -> Iterator[str]:
        self._unit = "record"
        for number, record in enumerate(self._elements(text), start=1):
            yield from self._text_of(record, number)
        self._check(at_end=True)

    def _elements(self, text: io.TextIOWrapper) -> Iterator[object]:
        """The elements of the array in ``text``, read in chunks: not all of it is in memory at once."""
        decoder, seen = json.JSONDecoder(), 0
        buffer = ""
        while not buffer and (chunk := text.read(_CHUNK)):
            buffer = chunk.lstrip()
        start = 1  # behind the bracket
        while True:
            value = end = problem = None
            at = _skip_space(buffer, start)
            if buffer[at : at + 1] == "]":
                if buffer[at + 1 :].strip() or text.read(_CHUNK).strip():
                    raise self._bad_array(seen, "there is more behind its end")
                return
            if seen and buffer[at : at + 1] not in (",", ""):
                raise self._bad_array(seen, "a comma is missing")
            try:
                value, end = decoder.raw_decode(buffer, _skip_space(buffer, at + bool(seen)))
            except (ValueError, RecursionError) as error:
                problem = str(error)
            if end is not None and end < len(buffer):  # else the next chunk may go on with it
                start, seen = end, seen + 1
                yield value
                continue
            more = text.read(max(_CHUNK, len(buffer) - start))
            if not more:
                raise self._bad_array(seen, problem or "it ends too early")
            buffer, start = buffer[start:] + more, 0

    def _text_of(self, record: object, number: int) -> Iterator[str]:
        self._counts.records += 1
        if isinstance(record, dict):
            for position, key in enumerate(self._keys):
                if isinstance(record.get(key), str):
                    self._good += 1
                    self._counts.from_second_key += position > 0
                    yield record[key]
                    return
        self._without_text(number, record)

    def _damaged(self, number: int, problem: str) -> None:
        self._counts.records += 1
        self._counts.damaged_records += 1
        self._counts.first_damaged = self._counts.first_damaged or f"{self._path}:{number} {problem}"
        fix = f"write one JSON object per line, for example: jq -c . {shlex.quote(str(self._path))}"
        self._lost(number, problem, fix)

    def _without_text(self, number: int, record: object) -> None:
        has = "it is not an object"
        fix = "write objects with a text"
        if isinstance(record, dict):
            has = f"it has {', '.join(map(repr, record)) or 'no keys'}"
            texts = {key: len(value) for key, value in record.items() if isinstance(value, str)}
            example = (
                f", for example --json-key {shlex.quote(max(texts, key=texts.__getitem__))}" if texts else ""
            )
            fix = f"give the key of the text with --json-key{example}"
        problem = f"has no text under the key {' or '.join(map(repr, self._keys))} ({has})"
        self._counts.records_without_text += 1
        self._counts.first_without_text = (
            self._counts.first_without_text or f"{self._path}:{number} {problem}"
        )
        self._lost(number, problem, fix)

    def _lost(self, number: int, problem: str, fix: str) -> None:
        self._bad += 1
        self._first = self._first or (number, problem, fix)
        if self._bad == _HOPELESS:
            self._check(at_end=False)

    def _check(self, *, at_end: bool) -> None:
        if self._good or self._first is None:
            return
        number, problem, fix = self._first
        many = f"; none of {'its' if at_end else 'the first'} {self._bad:,} records gives a document"
        constraint = f"this {self._unit} {problem}{many if self._bad > 1 else ''}"
        raise SpecError([Violation("", None, constraint, fix, str(self._path), number)])

    def _bad_array(self, seen: int, problem: str) -> SpecError:
        constraint = f"is not one whole JSON array: after {seen:,} records, {problem}"
        fix = "repair it, or write one JSON object per line"
        return SpecError([Violation("--input", str(self._path), constraint, fix)])


def _skip_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    assert found
    return found.end()


def check_share(counts: Counts) -> None:
    """Raise SpecError if more records were lost than became documents."""
    if counts.lost <= counts.records - counts.lost:
        return
    first = counts.first_damaged or counts.first_without_text
    constraint = (
        f"{counts.lost:,} of {counts.records:,} records are damaged or have no text; the first, {first}"
    )
    raise SpecError([Violation("--input", None, constraint, "repair the input, or give --json-key")])
