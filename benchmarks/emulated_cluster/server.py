"""The process that owns an emulated cluster and starts its ranks.

It is process 1 of a process namespace, so that its end, for whatever reason, is the end of every
process in the cluster, and it ends when the other end of its control pipe closes, which the kernel
sees to even when :mod:`emulated_cluster.cluster`'s process is killed. Ranks are forked from it after it
has imported what they need: on two cores, sixteen that each import torch take most of a minute.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from emulated_cluster.namespaces import Fabric
from emulated_cluster.topology import Topology
from frontrunner.parallelism.rendezvous import from_environment

_GRACE_S = 3.0  # after the first failure, for the other ranks to say what they saw


@dataclass(frozen=True)
class Call:
    """``function(rendezvous, *args)`` on each rank; ``target`` is ``module:function``."""

    target: str
    args: tuple[Any, ...]
    timeout_s: float | None


@dataclass(frozen=True)
class Execute:
    """A program on each rank."""

    command: Sequence[str]
    timeout_s: float | None


@dataclass
class End:
    """How a rank ended: exit code (negative for a signal), and the pickled answer to a Call.

    ``order`` counts the ranks that ended before it by themselves; None for those that were stopped.
    """

    code: int = -signal.SIGKILL
    answer: bytes | None = None
    order: int | None = None


def main() -> None:
    _require_own_namespace()
    control: Connection[Any, Any] = Connection(int(sys.argv[1]))
    try:
        _serve_all(control)
    except EOFError:
        pass
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # as below: the interpreter's own exit would run what libraries registered


def _serve_all(control: Connection[Any, Any]) -> None:
    """Answer requests until there is nobody to make one: EOFError."""
    topology, preload = control.recv()
    try:
        _name_packages(topology)
        fabric = Fabric(topology)
    except (OSError, subprocess.CalledProcessError) as error:
        control.send(str(error))
        return
    control.send(None)
    server = _Server(control, topology, fabric, preload)
    while True:
        request = control.recv()
        control.send(fabric.bytes_sent() if request is None else server.serve(request))


def _name_packages(topology: Topology) -> None:
    """Let addresses resolve, or torch warns of each; in the mount namespace of this process only."""
    hosts = Path("/etc/hosts")
    if not hosts.exists():
        return
    lines = [f"{start}{p.address} {p.port_name}\n" for p in topology.packages for start in ("", "::ffff:")]
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as file:
        file.write(hosts.read_text() + "\n" + "".join(lines))
        file.flush()
        Path(file.name).chmod(0o644)
        subprocess.run(["mount", "--bind", file.name, str(hosts)], check=True)


@dataclass
class _Rank:
    """A running rank, and where its answer arrives."""

    pid: int
    answers: Connection[Any, Any]
    end: End = field(default_factory=End)
    answered: bool = False

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.pid)

    def take_answer(self) -> None:
        self.answered = True
        with suppress(EOFError):  # programs give none
            self.end.answer = self.answers.recv_bytes()

    def take_end(self, order: int) -> None:
        self.end.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.end.order = order
        if not self.answered and self.answers.poll():
            self.take_answer()

    def close(self) -> None:
        os.close(self.pidfd)
        self.answers.close()


@dataclass
class _Server:
    control: Connection[Any, Any]
    topology: Topology
    fabric: Fabric
    preload: Sequence[str]
    loaded: bool = False

    def serve(self, request: Call | Execute) -> list[End]:
        """Run it on all ranks to the end; the ranks' ends in their order."""
        if isinstance(request, Call) or _is_frontrunner(request.command):
            self._load()
        sys.stdout.flush()
        sys.stderr.flush()
        ranks = []
        try:
            for rank in range(self.topology.world_size):
                ranks.append(self._fork(rank, request))
            self._watch(ranks, request.timeout_s)
        finally:
            _end_all()
            for started in ranks:
                started.close()
        return [rank.end for rank in ranks]

    def _load(self) -> None:
        if not self.loaded:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # megatron-core's, of optional packages that are not there
                for module in self.preload:
                    importlib.import_module(module)
            gc.freeze()  # the collector would otherwise copy the pages that ranks share
            self.loaded = True

    def _fork(self, rank: int, request: Call | Execute) -> _Rank:
        """Start a rank; does not return in the rank."""
        here, there = Pipe(duplex=False)
        pid = os.fork()
        if pid:
            there.close()
            return _Rank(pid, here)
        code = 1
        try:
            self.control.close()
            here.close()
            self.fabric.enter(self.topology.package_of(rank))
            os.environ.update(self.topology.variables(rank))
            code = _call(request, there) if isinstance(request, Call) else _execute(request.command)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # Not the interpreter's own exit: what a library registered for it may wait for peers.
            os._exit(code)

    def _watch(self, ranks: list[_Rank], timeout_s: float | None) -> None:
        """Wait until all ranks ended, the time is over, or the first failure is some seconds old."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        running = list(ranks)
        while running:
            left_s = max(0.0, deadline - time.monotonic())
            handles: list[Connection[Any, Any] | int] = [self.control, *(rank.pidfd for rank in running)]
            handles += [rank.answers for rank in running if not rank.answered]
            ready = wait(handles, None if left_s == math.inf else left_s)
            if self.control in ready:
                raise EOFError  # nothing is asked while ranks run, so that this is the other side's end
            if not ready:
                return
            for rank in running:
                if rank.answers in ready:
                    rank.take_answer()
                if rank.pidfd in ready:
                    rank.take_end(len(ranks) - len(running))
                    if rank.end.code:
                        deadline = min(deadline, time.monotonic() + _GRACE_S)
            running = [rank for rank in running if rank.end.order is None]


def _is_frontrunner(command: Sequence[str]) -> bool:
    return Path(command[0]).name == "frontrunner"


def _call(request: Call, answer: Connection[Any, Any]) -> int:
    try:
        module, _, name = request.target.partition(":")
        function = getattr(importlib.import_module(module), name)
        answer.send_bytes(pickle.dumps(function(from_environment(os.environ), *request.args)))
    except BaseException:
        answer.send_bytes(pickle.dumps(traceback.format_exc()))
        return 1
    return 0


def _execute(command: Sequence[str]) -> int:
    """Become the program; frontrunner itself runs here, where its imports are done."""
    if not _is_frontrunner(command):
        os.execvp(command[0], list(command))
    from frontrunner.launcher.cli import main

    sys.argv = list(command)
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _require_own_namespace() -> None:
    """Raise unless this is process 1: from any other, a signal to all would reach the whole machine."""
    if os.getpid() != 1:
        raise RuntimeError("the cluster's own process must be process 1 of a process namespace")


def _end_all() -> None:
    """End every other process in this process namespace, and wait until none is left."""
    _require_own_namespace()
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with suppress(ChildProcessError):
        while True:
            os.wait()
