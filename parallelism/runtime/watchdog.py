"""Ends a rank that makes no progress, after writing its stacks.

A rank that hangs blocks all others in their next collective, so the watchdogs of all ranks fire at nearly the
same time. The stack to read is the one that does not wait for other ranks.
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

_OTHERS_S = 5.0  # for other ranks to write theirs, before the end of this one makes them fail differently
_BELOW_PYTHON_S = 10.0


class Watchdog:
    """A thread that checks whether the rank has sent, received or taken a step within ``limit_s``."""

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
        """Note that the rank has reached another step."""
        self.transport.progress_s = time.monotonic()

    def stop(self) -> None:
        """Stop watching; leaves no file if nothing happened."""
        self._ended.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        if self._file is not None:
            self._file.close()
            path = files.stacks_file(self.run_dir, self.rank)
            path.unlink(missing_ok=True)
            with suppress(OSError):  # other ranks still have files there
                path.parent.rmdir()

    def _watch(self) -> None:
        assert self._file
        while not self._ended.wait(min(1.0, self.limit_s / 10)):
            # This thread cannot run while native code holds the interpreter lock; then faulthandler ends the
            # rank. It starts a thread each time, for which there may be no memory.
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
