"""Unpacks gzip, bzip2, xz, and zstd where a package for it is installed."""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from frontrunner.parallelism.runtime.data.kinds import NotText

#: What a damaged file raises as it is unpacked; zstd's own errors come as OSError.
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
_CHUNK = 2**14
_LONGEST_WINDOW = 31  # zstd --long=31, as in sources of The Pile
_GZIP = 16 + zlib.MAX_WBITS


def unpacked(raw: BinaryIO, form: str | None) -> BinaryIO:
    """The bytes in ``raw``, a file compressed as ``form`` (None: not at all).

    Reading raises one of DAMAGED where the file is damaged or ends too early; NotText if zstd is not here.
    """
    if form is None:
        return raw
    new: Callable[[], Any]
    match form:
        case "gzip":
            new = _gzip
        case "bzip2":
            new = bz2.BZ2Decompressor
        case "xz":
            new = lzma.LZMADecompressor
        case _:
            new = _zstd()
    return io.BufferedReader(_Streams(raw, new))


class _Streams(io.RawIOBase):
    """Compressed streams, one after the other, as parallel tools write them.

    The readers of bz2 and lzma take what follows a stream for padding if it is damaged, and zstandard's does
    not notice a file that was cut off: both would lose documents without a word.
    """

    def __init__(self, raw: BinaryIO, new: Callable[[], Any]) -> None:
        self._raw, self._new = raw, new
        self._stream: Any = None
        self._out = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._out:
            block = self._raw.read(_CHUNK)
            if not block:
                if self._stream is not None:
                    raise EOFError("it ends before its end marker was reached")
                return 0
            self._out = memoryview(self._decompressed(block))
        count = min(len(buffer), len(self._out))
        buffer[:count] = self._out[:count]
        self._out = self._out[count:]
        return count

    def _decompressed(self, block: bytes) -> bytes:
        out = []
        while block:
            if self._stream is None:
                block = block.lstrip(b"\x00")  # padding of gzip and xz
                if not block:
                    break
                self._stream = self._new()
            out.append(self._stream.decompress(block))
            block = b""
            if self._stream.eof:
                block, self._stream = self._stream.unused_data, None
        return b"".join(out)


def _gzip() -> Any:
    return zlib.decompressobj(_GZIP)


def _zstd() -> Callable[[], Any]:
    """What makes a decompressor of one frame."""
    try:  # Python 3.14 and newer
        module: Any = importlib.import_module("compression.zstd")
        options = {module.DecompressionParameter.window_log_max: _LONGEST_WINDOW}
        return lambda: _Frame(module.ZstdDecompressor(options=options), module.ZstdError)
    except ImportError:
        pass
    try:
        module = importlib.import_module("zstandard")
    except ImportError:
        fix = "pip install zstandard, or unpack it first: zstd -d FILE"
        raise NotText("compressed with zstd, and no package that reads it is installed", fix) from None
    whole = module.ZstdDecompressor(max_window_size=2**_LONGEST_WINDOW)
    return lambda: _Frame(whole.decompressobj(), module.ZstdError)


class _Frame:
    """One frame of zstd, whose error is an OSError."""

    def __init__(self, frame: Any, error: type[Exception]) -> None:
        self._frame, self._error = frame, error

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data)

    def decompress(self, block: bytes) -> bytes:
        try:
            return bytes(self._frame.decompress(block))
        except self._error as error:
            raise OSError(str(error)) from error
