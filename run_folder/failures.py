"""Why ranks failed: files in ``run_dir/errors/``, and the root cause among many failures.

When one rank dies, its peers fail a moment later, because their connection to it breaks. These
*secondary* failures explain nothing, so they are counted but not shown.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import open_plain, read_plain
from frontrunner.configs.secrets import masked
from frontrunner.run_folder import files
from frontrunner.run_folder.endings import CORRUPTED, FAILED, WRONG_REQUEST, RankFailed, TrainingFailed
from frontrunner.run_folder.files import errors_file, log_file, stacks_file

# Messages of gloo, NCCL/RCCL, the store and MPI when another rank is gone.
_BROKEN_CONNECTION = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|closed by peer|reset by peer|broken pipe"
    r"|remote process exited|socket (timeout|closed)|ncclRemoteError|ncclInternalError|ncclSystemError"
    r"|(recv|send|read|wait|store)\w* (timeout|timed out)|timed out (waiting|after)|failed to (recv|send)"
    r"|pair closure|by signal 6 "  # NCCL's watchdog aborts its process when a peer is gone
    r"|waited for other ranks",  # our own watchdog
    re.IGNORECASE,
)

_NO_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|DefaultCPUAllocator|cannot allocate|can't allocate memory"
    r"|std::bad_alloc|Killed process|oom[-_ ]?kill|when memory runs out",
    re.IGNORECASE,
)
_LONGEST_LOG = 200_000
_LARGEST = 2**24
_LOG_LINES, _CRASH_LINES = 20, 60
_LONGEST_SUMMARY = 300
#: Files of failures that are read to find the cause: a job of thousands of ranks leaves as many.
_MOST_READ = 256
#: More than is left on a disk that is full in all but name.
_PROBE_BYTES = 64 * 1024
HUNG = "hung"


@dataclass(frozen=True)
class Failure:
    """One rank's end. ``time_s`` is in seconds since the epoch; ``text`` is a traceback or a description.

    ``violations`` is not empty if the rank rejected the request.
    """

    rank: int
    host: str
    time_s: float
    message: str
    text: str
    violations: tuple[Violation, ...] = ()

    @property
    def summary(self) -> str:
        """One line: the rank and the first line of the message."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return f"rank {self.rank}: {lines[0][:_LONGEST_SUMMARY] if lines else 'failed'}"

    @property
    def secondary(self) -> bool:
        return _BROKEN_CONNECTION.search(self.message) is not None

    def explanation(self, world_size: int, run_dir: Path) -> str:
        """The message for the user: this failure in full, the others counted."""
        others = f"; the other {world_size - 1} ended as a result" if world_size > 1 else ""
        stacks = f"\n\n{_stacks(run_dir, world_size)}" if self.message.startswith(HUNG) else ""
        return (
            f"rank {self.rank} of {world_size} on {self.host} failed{others}:\n\n"
            f"{self.text.rstrip()}{stacks}\n\nrun folder: {run_dir}"
        )


def record(run_dir: Path, rank: int, error: BaseException) -> Failure:
    """Write ``errors/rank-N.txt``: one line of JSON for programs, then the traceback for people.

    A RankFailed names the rank at fault, which may be another than the one that writes.
    """
    said = isinstance(error, TrainingFailed)
    failure = Failure(
        rank=error.rank if isinstance(error, RankFailed) else rank,
        host=error.host if isinstance(error, RankFailed) else socket.gethostname(),
        time_s=time.time(),
        message=str(error) if said else f"{type(error).__name__}: {error}",
        text=str(error) if said else "".join(traceback.format_exception(error)),
        violations=error.violations if isinstance(error, SpecError) else (),
    )
    write(run_dir, failure, rank)
    return failure


def write(run_dir: Path, failure: Failure, writer: int | None = None) -> None:
    """Write a failure where :func:`read` finds it for rank ``writer``, by default the one that failed."""
    head = {name: value for name, value in asdict(failure).items() if name != "text"}
    head["violations"] = [violation.fields() for violation in failure.violations]
    path = errors_file(run_dir, failure.rank if writer is None else writer)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    text = json.dumps(head, default=str) + "\n\n" + failure.text
    unfinished.write_text(masked(text), encoding="utf-8")
    unfinished.replace(path)


def read(run_dir: Path, rank: int) -> Failure | None:
    """The failure that was written for a rank; None without one, or if its file is damaged."""
    path = errors_file(run_dir, rank)
    try:
        head, _, text = read_plain(path, _LARGEST).decode().partition("\n\n")
        fields = json.loads(head)
        fields["violations"] = tuple(Violation(**violation) for violation in fields["violations"])
        return Failure(**fields, text=text)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def first_cause(run_dir: Path) -> Failure | None:
    """The cause among the failures that the ranks of the last start wrote; None if there are none."""
    try:
        names = [entry.name for entry in os.scandir(run_dir / files.ERRORS)]
    except OSError:
        return None
    ranks = sorted(int(named[1]) for name in names if (named := files.ERRORS_NAME.fullmatch(name)))
    found = [failure for rank in ranks[:_MOST_READ] if (failure := read(run_dir, rank))]
    return cause(found) if found else None


def from_exit(run_dir: Path, rank: int, code: int, time_s: float) -> Failure | None:
    """The failure behind an exit code (negative: a signal's number), or None for 0.

    A rank that could not write its traceback is described by why it could not, or by how it ended and the end
    of its log.
    """
    if code == 0:
        return None
    written = read(run_dir, rank)
    if written is not None:
        return written
    how = ending(code)
    try:
        try_writing(run_dir)
    except OSError as error:
        what = f"{run_dir} cannot be written ({error.strerror})"
        return Failure(rank, socket.gethostname(), time_s, how, f"{what}; free some space, then continue")
    log = end_of_log(log_file(run_dir, rank))
    text = f"{how}\n{log}" if log else how
    return Failure(rank, socket.gethostname(), time_s, how, text)


def try_writing(run_dir: Path) -> None:
    """Raise OSError if the folder takes no file: a full disk, a quota, one that is read-only now."""
    probe = run_dir / f".probe.{socket.gethostname()}.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())  # some file systems only refuse then
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def ending(code: int) -> str:
    """Describes the end of a process that left no traceback."""
    if code >= 0:
        return f"ended with exit code {code} and no traceback"
    memory = ", which the kernel sends when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code} ({signal.strsignal(-code)}){memory}"


def cause(failures: Sequence[Failure]) -> Failure:
    """The failure to show: the earliest one that is not secondary; ``failures`` is not empty."""
    return min(failures, key=lambda failure: (failure.secondary, failure.time_s))


def out_of_memory(text: str) -> bool:
    """Whether a message or log says that memory ran out: torch's, the kernel's, Slurm's."""
    return _NO_MEMORY.search(text) is not None


def corrupted(text: str) -> bool:
    """Whether a failure's message or summary says that data were corrupted."""
    return f"{CORRUPTED}, found at" in text


def end_of_file(path: Path) -> str:
    """The last 200 kB of a log; empty without one."""
    try:
        with open_plain(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_LOG))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def of_job(run_dir: Path, log: Path, code: int) -> str:
    """Why the ranks of a job failed, in one line; empty if nothing says so."""
    written = first_cause(run_dir)
    if written is not None and not written.secondary:
        return written.summary
    said = [line.strip() for line in end_of_file(log).splitlines() if out_of_memory(line)]
    if said:
        return f"out of memory: {said[-1][:_LONGEST_SUMMARY]}"
    if written is not None:
        return written.summary
    # The shell's code of a process that a signal ended (bash(1), EXIT STATUS).
    return ending(128 - code) if 128 < code < 128 + signal.NSIG else ""


def code_of_job(run_dir: Path, code: int) -> int:
    """The exit code of the rank at fault, where srun's is that of a rank that it ended because of it.

    srun reports the largest code of all ranks, and ends the others with SIGTERM, then SIGKILL.
    """
    if code not in (128 + signal.SIGTERM, 128 + signal.SIGKILL):
        return code
    written = first_cause(run_dir)
    if written is None or written.secondary:
        return code
    return WRONG_REQUEST if written.violations else FAILED


def _stacks(run_dir: Path, world_size: int) -> str:
    """Where the stacks of a hung run are, and which ranks wrote none."""
    silent = [
        str(rank)
        for rank in range(world_size)
        if not (path := stacks_file(run_dir, rank)).exists() or not path.stat().st_size
    ]
    where = f"stacks of the ranks: {run_dir / files.STACKS}"
    if not silent or len(silent) == world_size:
        return where
    return f"{where}; none from {', '.join(silent)}: stopped, or stuck outside Python"


def end_of_log(path: Path) -> str:
    """The last lines of a log, starting at a crash's stack if there is one; empty without a log."""
    text = end_of_file(path)
    crash = text.rfind("Fatal Python error")
    lines = text[crash:].splitlines()[:_CRASH_LINES] if crash >= 0 else text.splitlines()[-_LOG_LINES:]
    return "\n".join([f"the end of {path}:", *lines]) if lines else ""
