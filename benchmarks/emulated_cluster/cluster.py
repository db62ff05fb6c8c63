"""An emulated cluster, from the outside."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Pipe
from types import TracebackType
from typing import Any

from emulated_cluster.server import Call, End, Execute
from emulated_cluster.topology import Topology
from frontrunner.launcher.ranks.local import PRELOAD
from frontrunner.run_folder.failures import ending

_SERVER = """\
import sys
sys.path[:] = sys.argv[2:]
from emulated_cluster.server import main
main()
"""
_CLOSE_S = 10.0
# Debian has ip and tc where only root's PATH leads.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


class ClusterError(RuntimeError):
    """The cluster could not be brought up, or what ran on it failed."""


class EmulatedCluster:
    """A context in which ranks run in the packages of a topology.

    Nothing of it outlives the context, or this process, whatever ends it. Only one thing runs on it at a
    time. ``preload`` are modules that the ranks find imported.
    """

    def __init__(self, topology: Topology, preload: Sequence[str] = PRELOAD) -> None:
        self.topology = topology
        self._preload = preload

    def __enter__(self) -> EmulatedCluster:
        """Raises ClusterError where the machine cannot do it."""
        reason = unavailable()
        if reason:
            raise ClusterError(reason)
        self._control, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [*_isolated(), sys.executable, "-c", _SERVER, str(there.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                env={"OMP_NUM_THREADS": "1", **os.environ, "PATH": _PATH},
                start_new_session=True,  # the terminal's Ctrl-C is for this process alone
            )
        problem = self._ask((self.topology, tuple(self._preload)))
        if problem:
            self.close()
            raise ClusterError(f"cannot bring up the cluster: {problem}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, target: str, *args: Any, timeout_s: float | None = None) -> list[Any]:
        """``function(rendezvous, *args)`` on each rank; the results in order of rank.

        ``target`` is ``module:function``; arguments and results are pickled.
        Raises ClusterError with the traceback of the rank that failed first, or when the time is over.
        """
        ends = self._ask(Call(target, args, timeout_s))
        _check_time(ends, timeout_s)
        failed = _first_failure(ends)
        if failed is not None:
            answer = ends[failed].answer
            text = pickle.loads(answer) if answer else ending(ends[failed].code)
            raise ClusterError(f"rank {failed} failed: {text}")
        if silent := [rank for rank, end in enumerate(ends) if end.answer is None]:
            raise ClusterError(f"ranks {silent} ended their process instead of returning")
        return [pickle.loads(end.answer) for end in ends if end.answer is not None]

    def execute(self, command: Sequence[str], timeout_s: float | None = None) -> int:
        """Run a program on each rank; 0, or the exit code of the rank that failed first.

        The code is 128 + n for signal n. Raises ClusterError when the time is over.
        """
        ends = self._ask(Execute(tuple(command), timeout_s))
        _check_time(ends, timeout_s)
        failed = _first_failure(ends)
        if failed is None:
            return 0
        code: int = ends[failed].code
        return code if code > 0 else 128 - code

    def bytes_sent(self) -> dict[str, int]:
        """What the kernel counted on all packages' links since the start, by level, headers included."""
        counted: dict[str, int] = self._ask(None)
        return counted

    def close(self) -> None:
        """End all processes of the cluster, with which its network ends too."""
        self._control.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ask(self, request: object) -> Any:
        try:
            self._control.send(request)
            return self._control.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.close()
            raise ClusterError(f"the cluster's own process {ending(self._process.returncode)}") from None
        except BaseException:  # KeyboardInterrupt too: this answer must not become the next request's
            self.close()
            raise


def unavailable() -> str | None:
    """Why this machine cannot emulate a cluster; None where it can."""
    missing = [tool for tool in ("ip", "tc", "unshare") if not shutil.which(tool, path=_PATH)]
    if missing:
        return f"{' and '.join(missing)} not found: apt-get install iproute2 util-linux"
    tried = subprocess.run([*_isolated(), "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not permitted here (run as root?): {tried.stderr.strip()}"
    return None


def _isolated() -> list[str]:
    """The command that runs another as process 1 of new namespaces, as root there."""
    as_root = ["--user", "--map-root-user"] if os.geteuid() else []
    return ["unshare", *as_root, "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]


def _check_time(ends: Sequence[End], timeout_s: float | None) -> None:
    slow = [rank for rank, end in enumerate(ends) if end.order is None]
    if slow and _first_failure(ends) is None:
        raise ClusterError(f"ranks {slow} had not ended after {timeout_s} s")


def _first_failure(ends: Sequence[End]) -> int | None:
    """The rank that was first to end with an exit code other than 0."""
    failed = [(end.order, rank) for rank, end in enumerate(ends) if end.code and end.order is not None]
    return min(failed)[1] if failed else None
