"""Locks on files: taken by one process, seen by all without disturbing it.

They are open-file-description locks (fcntl(2)): children inherit them, and they end with the last process
that has the file open, however it ends. Unlike flock's, they can be asked for without being taken.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from frontrunner.configs.plain_files import open_plain, read_plain

_LARGEST = 4096


def take(file: TextIO) -> bool:
    """Whether this process got the lock of a file open for writing; True on file systems without locks."""
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _request())
    except BlockingIOError:
        return False
    except OSError:  # some sites mount Lustre without locks
        pass
    return True


@dataclass(frozen=True)
class Start:
    """When a lock was last taken (seconds since the epoch; 0: unknown), in which job, and for how many steps
    of training in all (None: unknown)."""

    time_s: float = 0.0
    job_id: str | None = None
    steps: int | None = None


def note_start(file: TextIO, job_id: str | None, steps: int | None = None) -> None:
    """Write into a taken lock's file when it was taken, in which job, and for how many steps."""
    with suppress(OSError):
        file.truncate(0)
        file.write(json.dumps({"time": time.time(), "job_id": job_id, "steps": steps}))
        file.flush()


def last_start(path: Path) -> Start:
    """What :func:`note_start` wrote last."""
    try:
        found = json.loads(read_plain(path, _LARGEST))
        return Start(float(found["time"]), found["job_id"], found.get("steps"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Start()


def held(path: Path) -> bool | None:
    """Whether a process holds the lock of a file; None if the file system cannot say."""
    try:
        with open_plain(path) as file:
            answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _request())
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


def _request() -> bytes:
    """struct flock: a write lock on the whole file."""
    return struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
