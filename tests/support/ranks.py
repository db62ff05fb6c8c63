"""Run a function on several CPU ranks at once, over gloo.

The ranks come from a forkserver that has torch and megatron-core loaded, so that starting eight of them
takes about a second instead of half a minute. What only few tests need on top is loaded by a server of
:mod:`support.program`.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from frontrunner.parallelism.rendezvous import Rendezvous, free_port
from support.program import Forked, server

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
_context = multiprocessing.get_context("forkserver")
PRELOAD = ("support.preloaded",)
_context.set_forkserver_preload([*PRELOAD])


def run_ranks(
    size: int,
    function: Callable[..., Any],
    *args: Any,
    timeout: float = 120,
    preload: tuple[str, ...] = (),
) -> list[Any]:
    """``function(rendezvous, *args)`` on each of ``size`` ranks; their results in order of rank.

    The ranks are forked from a process that also has the modules ``preload`` loaded.
    """
    port = free_port()
    target = f"{function.__module__}:{function.__qualname__}"
    processes: list[Any] = []
    pipes = []
    for rank in range(size):
        here, there = _context.Pipe(duplex=False)
        rendezvous = Rendezvous(rank, size, rank, "127.0.0.1", port, "test")
        if preload:
            processes.append(_Preloaded(preload, there, (target, rendezvous, args)))
        else:
            processes.append(
                _context.Process(target=_run, args=(there, target, rendezvous, args), daemon=True)
            )
        processes[-1].start()
        there.close()
        pipes.append(here)
    try:
        return [_receive(pipe, rank, timeout) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()


class _Preloaded:
    """As much of a Process as is needed, in a child of the server that has ``preload`` loaded."""

    def __init__(self, preload: tuple[str, ...], answer: Connection, call: tuple[Any, ...]) -> None:
        self._preload, self._answer, self._call = preload, answer, call

    def start(self) -> None:
        with tempfile.TemporaryFile() as call:
            pickle.dump(self._call, call)
            call.seek(0)
            streams = call.fileno(), self._answer.fileno(), 2
            request = {"program": "", "words": [], "folder": str(Path.cwd()), "env": dict(os.environ)}
            self._process = Forked(server("ranks", *self._preload), request, streams)

    def join(self, timeout: float) -> None:
        with suppress(TimeoutError):
            self._process.wait(timeout)

    def kill(self) -> None:
        self._process.kill()


def answer() -> None:
    """What a child of the server does: the call in its standard input, whose result is its output."""
    call = pickle.load(sys.stdin.buffer)
    pipe = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    _run(pipe, *call)


def _receive(pipe: Connection, rank: int, timeout: float) -> Any:
    if not pipe.poll(timeout):
        raise TimeoutError(f"rank {rank} did not answer in {timeout} s")
    result, error = pipe.recv()
    if error:
        raise RuntimeError(f"rank {rank} failed:\n{error}")
    return result


def _run(pipe: Connection, target: str, rendezvous: Rendezvous, args: tuple[Any, ...]) -> None:
    module, _, name = target.partition(":")
    try:
        pipe.send((getattr(importlib.import_module(module), name)(rendezvous, *args), None))
    except BaseException:
        pipe.send((None, traceback.format_exc()))
