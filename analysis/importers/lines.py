"""Reads the lines of any log: plain or gzip, UTF-8 or UTF-16, complete or truncated, whatever its bytes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, cast

from frontrunner.configs.plain_files import open_plain

#: No trainer prints figures on longer lines. They are read in pieces, so that no line fills the memory.
LONGEST_LINE = 1 << 20
GZIP = b"\x1f\x8b"
UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


class Lines:
    """Iterates over the lines of a file as UTF-8 bytes. Afterwards ``torn`` says whether it was truncated.

    Raises OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn = False

    def __iter__(self) -> Iterator[bytes]:
        with cast(BufferedReader, open_plain(self._path)) as file:
            packed = file.peek(2)[:2] == GZIP
            source = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
            try:
                yield from _lines(source)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                self.torn = True


def head(path: Path, size: int = 1 << 16) -> bytes:
    """The first bytes of a log, unpacked; fewer if it is shorter or damaged."""
    found = b""
    for line in Lines(path):
        found += line + b"\n"
        if len(found) >= size:
            break
    return found[:size]


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    buffered = source if isinstance(source, BufferedReader) else BufferedReader(cast(RawIOBase, source))
    encoding = UTF16.get(buffered.peek(2)[:2])
    if encoding:
        text = buffered.read().decode(encoding, errors="replace")
        yield from (line.encode(errors="replace") for line in text.splitlines())
        return
    while line := buffered.readline(LONGEST_LINE):
        yield line.rstrip(b"\r\n")
