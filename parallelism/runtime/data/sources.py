"""Reads documents from text files, folders and JSON lines, in a fixed order and one at a time."""

from __future__ import annotations

import gzip
import io
import json
import re
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import open_plain

PYTHON_STDLIB = "python-stdlib"
SUFFIXES = (".txt", ".md", ".rst", ".py", ".jsonl")
_JSON_LINES = (".jsonl", ".ndjson", ".json")  # .json: Megatron's tools use it for JSON lines
_NOT_STDLIB = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
_PART_CHARACTERS = 2**18
_LINE_CHARACTERS = 2**28
_SURROGATE = re.compile("[\ud800-\udfff]")


class Documents:
    """The documents of some files, in order; each iteration restarts the counts.

    A JSON line is one document. A text file is one document, or several if it is longer than 262,144
    characters. It is then cut at line ends, so that memory stays bounded and one long file can still be
    split into training and validation. ``.gz`` files are unpacked. Bytes that are not UTF-8 become U+FFFD
    and are counted; empty documents are dropped and counted.
    """

    def __init__(self, files: Sequence[Path], json_key: str) -> None:
        self._files, self._json_key = files, json_key
        try:
            self._sizes = [file.stat().st_size for file in files]
        except OSError as error:
            raise _unreadable(error.filename, error.strerror) from error
        self.total_bytes = sum(self._sizes)
        self._reset()

    def _reset(self) -> None:
        self.bytes_read = self.undecodable_bytes = self.empty_documents = 0
        self.first_undecodable: Path | None = None

    def __iter__(self) -> Iterator[str]:
        self._reset()
        for path, size in zip(self._files, self._sizes, strict=True):
            before = self.bytes_read
            try:
                with open_plain(path) as raw:
                    for text in self._of_file(path, raw):
                        self.bytes_read = before + raw.tell()
                        if text := self._clean(path, text):
                            yield text
                        else:
                            self.empty_documents += 1
            except (OSError, EOFError, zlib.error) as error:
                raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from error
            self.bytes_read = before + size

    def _of_file(self, path: Path, raw: BinaryIO) -> Iterator[str]:
        packed = path.suffix.lower() == ".gz"
        stream = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw
        suffix = Path(path.stem).suffix if packed else path.suffix
        # surrogateescape marks each undecodable byte for _clean to count
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
        if suffix.lower() in _JSON_LINES:
            return _json_lines(path, text, self._json_key)
        return _parts(text)

    def _clean(self, path: Path, text: str) -> str:
        text, replaced = _SURROGATE.subn("\ufffd", text)
        if replaced and self.first_undecodable is None:
            self.first_undecodable = path
        self.undecodable_bytes += replaced
        return text


def find_files(inputs: Sequence[str], suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """The files of the inputs, in the given order; files of a folder are sorted by path.

    A file is read whatever its name. A folder gives its files at any depth that end in one of ``suffixes``,
    with or without ``.gz``, except hidden ones. ``python-stdlib`` (unless that path exists) is the source of
    the running Python's standard library without its tests.
    """
    files: list[Path] = []
    violations: list[Violation] = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found = _in_folder(path, suffixes)
        elif path.is_file():
            found = [path]
        elif name == PYTHON_STDLIB:
            library = Path(sysconfig.get_path("stdlib"))
            found = [
                f for f in _in_folder(library, [".py"]) if not _NOT_STDLIB & {*f.relative_to(library).parts}
            ]
        else:
            problem = f"{name} is neither a file nor a folder" if path.exists() else f"{name} does not exist"
            violations.append(Violation("--input", name, problem, "give text files, JSON lines or folders"))
            continue
        if not found:
            wanted = ", ".join(suffixes)
            fix = "give other files or add --suffix .ext"
            violations.append(Violation("--input", name, f"{name} holds no file that ends in {wanted}", fix))
        files += found
    if violations:
        raise SpecError(violations)
    return files


def _in_folder(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    endings = tuple(ending for suffix in suffixes for ending in (suffix, f"{suffix}.gz"))
    found = [
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(endings)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _parts(text: io.TextIOWrapper) -> Iterator[str]:
    part = text.read(_PART_CHARACTERS)
    if not part:
        yield ""
    while part:
        # without line ends, cut anywhere
        yield part if part.endswith("\n") else part + text.readline(_PART_CHARACTERS)
        part = text.read(_PART_CHARACTERS)


def _json_lines(path: Path, text: io.TextIOWrapper, key: str) -> Iterator[str]:
    lines = iter(lambda: text.readline(_LINE_CHARACTERS + 1), "")
    for number, line in enumerate(lines, start=1):
        if len(line) > _LINE_CHARACTERS:
            problem = f"has more than {_LINE_CHARACTERS:,} characters"
            raise _bad_line(path, number, problem, "write one document per line")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = f"is not JSON ({error})"
            raise _bad_line(path, number, problem, "write one JSON object per line") from error
        value = record.get(key) if isinstance(record, dict) else None
        if not isinstance(value, str):
            keys = (
                f"it has {', '.join(map(repr, record)) or 'no keys'}"
                if isinstance(record, dict)
                else "it is not an object"
            )
            problem = f"has no text under the key {key!r} ({keys})"
            raise _bad_line(path, number, problem, "give the key of the text with --json-key")
        yield value


def _bad_line(path: Path, number: int, problem: str, fix: str) -> SpecError:
    return SpecError([Violation("", None, f"this line {problem}", fix, str(path), number)])


def _unreadable(path: object, problem: object) -> SpecError:
    fix = "make it readable or remove it from --input"
    return SpecError([Violation("--input", str(path), f"{path} cannot be read ({problem})", fix)])
