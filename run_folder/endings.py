"""How a run ends: exit codes, stop requests, and failures with a complete message."""

from __future__ import annotations

import signal

#: Exit codes of commands and ranks; 0 is success.
FAILED, WRONG_REQUEST, TO_BE_CONTINUED, INTERRUPTED = 1, 2, 75, 130

#: How the message of such a failure begins.
CORRUPTED = "silent data corruption"

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


class RankFailed(TrainingFailed):
    """``rank`` on ``host`` is at fault, whichever rank says so."""

    def __init__(self, message: str, rank: int, host: str) -> None:
        super().__init__(message)
        self.rank = rank
        self.host = host


class Corrupted(RankFailed):
    """Silent data corruption was found at ``step``; no checkpoint holds it, because each is verified."""

    def __init__(self, step: int, message: str, rank: int, host: str) -> None:
        super().__init__(f"{CORRUPTED}, found at step {step}: {message}", rank, host)
        self.step = step


def listen() -> None:
    """Treat stop signals as requests from now on; main thread only.

    A launcher may have blocked SIGUSR1 so that it does not kill a process without a handler.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, lambda got, _: _asked.append(got))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def settled() -> None:
    """Ignore stop signals from now on: this process has stopped, or is done, and only ends.

    Slurm sends them again. One that came in the interpreter's last second would kill the process, and a run
    that can be continued would look like one that failed.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def asked() -> bool:
    """Has this process been asked to stop?"""
    return bool(_asked)
