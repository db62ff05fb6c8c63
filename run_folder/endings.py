"""How a run ends: exit codes, stop requests, and failures with a complete message."""

from __future__ import annotations

import signal

#: Exit codes of commands and ranks; 0 is success.
FAILED, WRONG_REQUEST, TO_BE_CONTINUED, INTERRUPTED = 1, 2, 75, 130

#: Slurm sends the first before a time limit (``--signal``), and the second at it.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_asked: list[int] = []


class Stopped(Exception):
    """The run stopped on request with a checkpoint after ``step`` steps; it can be continued."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped on request after step {step}")
        self.step = step


class TrainingFailed(Exception):
    """Training cannot continue, and the message is complete."""


def listen() -> None:
    """Treat stop signals as requests from now on; main thread only.

    A launcher may have blocked SIGUSR1 so that it does not kill a process without a handler.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda got, _: _asked.append(got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def asked() -> bool:
    """Has this process been asked to stop?"""
    return bool(_asked)
