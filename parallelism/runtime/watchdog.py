"""Ends a rank that gets nowhere, after writing down where it stands.

A rank that hangs holds all others up in their next collective, so that the watchdogs of all ranks find the
same at nearly the same time, each its own rank: the stack that waits for no other rank is the one to read.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.run_folder import failures, files
from frontrunner.run_folder.endings import TrainingFailed

_OTHERS_S = 5.0  # for the other ranks to write theirs, before this one's end makes them fail otherwise
_BELOW_PYTHON_S = 10.0


class Watchdog:
    """A thread that looks whether the rank has sent, received or taken a step within ``limit_s``."""

    def __init__(self, run_dir: Path, rank: int, limit_s: float, transport: Transport) -> None:
        self.run_dir = run_dir
        self.rank = rank
        self.limit_s = limit_s
        self.transport = transport
        self._file: TextIO | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        path = files.stacks_file(self.run_dir, self.rank)
        path.parent.mkdir(exist_ok=True)
        self._file = path.open("w")
        self.beat()
        self._thread.start()

    def beat(self) -> None:
        """The rank has come to another step."""
        self.transport.progress_s = time.monotonic()

    def stop(self) -> None:
        """Watch no longer; leaves no file where nothing happened."""
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self._file is not None:
            self._file.close()
            path = files.stacks_file(self.run_dir, self.rank)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # the last rank's was not the last file
                path.parent.rmdir()

    def _watch(self) -> None:
        assert self._file
        while not self._ended.wait(min(1.0, self.limit_s / 10)):
            # This thread cannot run while code below Python holds the interpreter's lock; then that ends the
            # rank. It needs a thread of its own each time, for which there may be no memory.
            with suppress(RuntimeError):
                faulthandler.dump_traceback_later(self.limit_s + _BELOW_PYTHON_S, exit=True, file=self._file)
            silent_s = time.monotonic() - self.transport.progress_s
            if silent_s > self.limit_s:
                self._end(silent_s)

    def _end(self, silent_s: float) -> None:
        assert self._file
        waiting = self.transport.waiting_for
        faulthandler.dump_traceback(self._file, all_threads=True)
        self._file.flush()
        what = f"waited for other ranks ({waiting})" if waiting else "waits for no other rank"
        error = TrainingFailed(f"{failures.HUNG}: nothing happened for {silent_s:.0f} s; this rank {what}")
        failures.record(self.run_dir, self.rank, error)
        time.sleep(_OTHERS_S)
        os._exit(1)
