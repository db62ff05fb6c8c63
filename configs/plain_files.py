"""Opens files that somebody else may have put there: regular files alone, and no more than fits in memory.

A named pipe would wait for a writer forever, a device never ends, and a sparse file holds terabytes in no
space.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def open_plain(path: Path) -> BinaryIO:
    """A regular file, open for reading; OSError for anything else, without waiting."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a regular file; OSError if there are more than ``most``."""
    with open_plain(path) as file:
        # By its size, before gigabytes are read; and by what is read, because the file may grow.
        is_larger = os.fstat(file.fileno()).st_size > most
        data = b"" if is_larger else file.read(most + 1)
    if is_larger or len(data) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(path))
    return data


def why_missing(path: Path, error: Exception) -> str:
    """Why a path cannot be followed to a file, in words; ``error`` is what the system said."""
    with suppress(OSError, ValueError):
        return f"is a link to {path.readlink()}, which leads to no file"
    if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return f"cannot be read ({error.strerror})"
    return "no such file"


def not_followed(path: str, flags: int) -> int:
    """An ``opener`` for writing: OSError for a symbolic link or a pipe.

    A folder that was copied from somebody may hold a link to a file of ours.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
