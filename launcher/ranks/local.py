"""Starts the ranks of a run on this machine, and always ends all of them."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.errors import RunFailed, RunStopped
from frontrunner.launcher.ranks.rank import TRAIN, threads_per_rank
from frontrunner.parallelism import versions
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import LOOPBACK, free_port
from frontrunner.run_folder import checkpoints, endings, failures, files
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.endings import STOP_SIGNALS, TO_BE_CONTINUED

PRELOAD = (
    "frontrunner.parallelism.runtime.quick_import",
    "torch._dynamo",  # torch's optimizers load it at the first step: once here, not in each rank
    "frontrunner.configs.load",
    "frontrunner.parallelism.runtime.train",
)
# Not -m, which would let files in the current folder shadow modules.
_SERVER = """\
import sys
sys.path[:] = sys.argv[2:]
from frontrunner.launcher.ranks.forkserver import main
main()
"""
_TICK_S = 0.1
_MOST_CORRUPTIONS = 3  # after which the run ends
_GRACE_S = 1.0  # after the first failure, to identify the rank at fault


def require_torch() -> None:
    """Raise RunFailed if a package of the ranks is missing, SpecError if one is too old.

    Imports none of them.
    """
    for package in ("torch", "megatron"):
        if importlib.util.find_spec(package) is None:
            raise RunFailed(f"{package} is not installed: pip install 'frontrunner[train]'")
    versions.check()


def launch(
    run_dir: Path,
    world_size: int,
    *,
    on_tick: Callable[[], None] = lambda: None,
    target: str = TRAIN,
    preload: Sequence[str] = PRELOAD,
    profile: ProfileRequest | None = None,
) -> None:
    """Run ``world_size`` ranks of ``target`` to the end; ``run_dir/run.yaml`` is their run.

    ``on_tick`` is called about ten times a second. SIGUSR1 and SIGTERM ask the ranks to stop after a
    checkpoint; a second one, SIGINT and SIGHUP end them at once. Raises RunFailed with the text of the root
    failure, SpecError if a rank rejected the request, RunStopped if the ranks stopped on request, and
    KeyboardInterrupt if they were ended. No process is left when this returns, and none outlives this
    process.
    """
    with _signals_noted() as noted:
        ranks = _Ranks(run_dir, world_size, target, preload, profile)
        try:
            while not (ranks.done or ranks.grace_over or noted.end_now):
                ranks.poll()
                if noted.stop:
                    ranks.ask_to_stop()
                on_tick()
        finally:
            ranks.end()
        on_tick()
    if noted.end_now and not ranks.done:
        raise KeyboardInterrupt
    ranks.check()


def launch_again_if_corrupted(
    run_dir: Path,
    world_size: int,
    on_tick: Callable[[], None],
    say: Callable[[str], None],
    profile: ProfileRequest | None = None,
) -> None:
    """:func:`launch`, and again from the last checkpoint if the ranks found corrupted data, a few times.

    ``say`` gets a line before each further start. Raises what :func:`launch` raises.
    """
    for left in range(_MOST_CORRUPTIONS, -1, -1):
        try:
            launch(run_dir, world_size, on_tick=on_tick, profile=profile)
            return
        except RunFailed as error:
            if not (failures.corrupted(str(error)) and left):
                raise
        newest = next(iter(checkpoints.found(run_dir)), None)
        where = f"from {newest}" if newest else "from the beginning: there is no checkpoint"
        say(f"data were corrupted; the run goes back and starts again {where} ({left} of these starts left)")
        run_folder.clear_failures(run_dir)


def start_server(request: dict[str, Any], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process of :mod:`frontrunner.launcher.ranks.forkserver`, the leader of a session of its own."""
    threads = threads_per_rank(request["world_size"])
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, json.dumps(request), *sys.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={"OMP_NUM_THREADS": str(threads), **os.environ, **LOOPBACK},
        start_new_session=True,  # Ctrl-C goes only to the launcher
    )


class _Ranks:
    """The fork server and its reports; see :mod:`frontrunner.launcher.ranks.forkserver`."""

    def __init__(
        self,
        run_dir: Path,
        world_size: int,
        target: str,
        preload: Sequence[str],
        profile: ProfileRequest | None,
    ) -> None:
        self._run_dir = run_dir
        self._world_size = world_size
        self._exits: dict[int, dict[str, Any]] = {}
        self._first_failure_s: float | None = None
        self._started = self._asked = False
        self._buffer = b""
        self._open = True
        self._log = files.launcher_log(run_dir)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "run_dir": str(run_dir.resolve()),
            "world_size": world_size,
            "port": free_port(),
            "target": target,
            "preload": list(preload),
            "profiled": profile,
        }
        with self._log.open("ab") as log:
            self._server = start_server(request, log)
        assert self._server.stdout is not None
        self._reports = self._server.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reports, selectors.EVENT_READ)

    @property
    def done(self) -> bool:
        """Every rank was reported, or the fork server is gone."""
        return not self._open or len(self._exits) == self._world_size

    @property
    def grace_over(self) -> bool:
        return self._first_failure_s is not None and time.monotonic() > self._first_failure_s + _GRACE_S

    def poll(self) -> None:
        """Wait at most one tick for reports, and process them."""
        if not self._selector.select(_TICK_S):
            return
        chunk = os.read(self._reports, 65536)
        self._open = bool(chunk)
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for report in map(json.loads, lines):
            if "rank" in report:
                self._exits[report["rank"]] = report
                if report["code"] not in (0, TO_BE_CONTINUED) and self._first_failure_s is None:
                    self._first_failure_s = time.monotonic()
            else:
                self._started = True

    def ask_to_stop(self) -> None:
        """Ask the ranks once, as soon as they run, to write a checkpoint and stop."""
        if self._started and not self._asked:
            self._asked = True
            self._kill(signal.SIGUSR1)

    def end(self) -> None:
        """End all remaining processes, including children of ranks, and wait for them."""
        self._kill(signal.SIGKILL)
        self._server.wait()
        self._selector.close()
        for pipe in (self._server.stdin, self._server.stdout):
            if pipe is not None:
                pipe.close()

    def check(self) -> None:
        """Raise the failure, if any, or RunStopped if the ranks stopped on request."""
        if self._exits and {report["code"] for report in self._exits.values()} == {TO_BE_CONTINUED}:
            raise RunStopped(f"stopped on request; to continue: {run_folder.how_to_go_on(self._run_dir)}")
        found = [failure for rank in range(self._world_size) if (failure := self._failure(rank))]
        if not found:
            if len(self._exits) < self._world_size:
                raise RunFailed(f"the process that starts the ranks {self._end_of_server()}")
            return
        first = failures.cause(found)
        if first.violations:
            raise SpecError(first.violations)
        raise RunFailed(first.explanation(self._world_size, self._run_dir))

    def _failure(self, rank: int) -> failures.Failure | None:
        ended = self._exits.get(rank)
        if ended is not None and ended["code"] == TO_BE_CONTINUED:
            return None
        if ended is None:  # it may have failed and then hung on exit
            return failures.read(self._run_dir, rank)
        failure = failures.from_exit(self._run_dir, rank, ended["code"], ended["time_s"])
        if failure is not None and failures.read(self._run_dir, rank) is None:
            with suppress(OSError):  # a full disk may be why it died
                failures.write(self._run_dir, failure)
        return failure

    def _kill(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._server.pid, number)

    def _end_of_server(self) -> str:
        code = self._server.returncode
        return failures.ending(code) if code < 0 else f"failed\n{failures.end_of_log(self._log)}"


class _Noted:
    """The signals received so far."""

    def __init__(self) -> None:
        self._came: list[int] = []

    def add(self, number: int, _frame: object) -> None:
        self._came.append(number)

    @property
    def stop(self) -> bool:
        """A checkpoint and a stop were requested."""
        return bool(self._came)

    @property
    def end_now(self) -> bool:
        """An immediate end was requested, or a stop twice."""
        return len(self._came) > 1 or any(number not in STOP_SIGNALS for number in self._came)


@contextmanager
def _signals_noted() -> Iterator[_Noted]:
    """Record signals instead of interrupting."""
    noted = _Noted()
    numbers = [signal.SIGINT, *STOP_SIGNALS]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it stays ignored
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, noted.add) for number in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted.stop:
            endings.settled()
