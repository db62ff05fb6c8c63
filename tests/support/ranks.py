"""Run a function on several CPU ranks at once, over gloo.

The ranks come from a forkserver that has torch and megatron-core loaded, so that starting eight of them
takes about a second instead of half a minute.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from frontrunner.parallelism.rendezvous import Rendezvous, free_port

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
_context = multiprocessing.get_context("forkserver")
# pytest too: each rank imports the script that runs the tests again as its main module.
# torch's compiler, because its optimizers load it at the first step.
_context.set_forkserver_preload(
    ["frontrunner.parallelism.runtime.trainer", "torch._dynamo", "support.rounding", "pytest"]
)


def run_ranks(size: int, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
    """``function(rendezvous, *args)`` on each of ``size`` ranks; their results in order of rank."""
    port = free_port()
    target = f"{function.__module__}:{function.__qualname__}"
    processes, pipes = [], []
    for rank in range(size):
        here, there = _context.Pipe(duplex=False)
        rendezvous = Rendezvous(rank, size, rank, "127.0.0.1", port, "test")
        process = _context.Process(target=_run, args=(there, target, rendezvous, args), daemon=True)
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    try:
        return [_receive(pipe, rank, timeout) for rank, pipe in enumerate(pipes)]
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()


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
