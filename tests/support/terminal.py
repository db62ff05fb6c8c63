"""Runs our program on a terminal of some width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.program import run, start

#: What would ask for colours or a width whatever the output is.
_VARIABLES = ("COLUMNS", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
#: Colours, and what a progress bar clears and hides.
_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """What a terminal was sent, output and messages in one, and the exit code."""

    raw: str
    code: int

    @property
    def lines(self) -> list[str]:
        """Lines without the sequences that we send ourselves."""
        return _STYLE.sub("", self.raw).replace("\r\n", "\n").splitlines()


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _VARIABLES}
    return kept | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"} | dict(extra or {})


def on_terminal(
    *words: str, columns: int = 80, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> Shown:
    """Run ``frontrunner WORDS`` with a terminal as its three streams."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = start((its, its, its), words, folder, environment(env))
    os.close(its)
    read = b""
    try:
        while chunk := os.read(ours, 65536):
            read += chunk
    except OSError:  # Linux says so when the last process has closed the terminal
        pass
    finally:
        os.close(ours)
    return Shown(read.decode(), process.wait(timeout=60))


def in_pipe(
    *words: str, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``frontrunner WORDS`` with its output in pipes."""
    return run(*words, folder=folder, env=environment(env))
