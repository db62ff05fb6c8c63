"""The process that imports torch once and forks all ranks.

Importing torch and megatron-core takes seconds of CPU time. For eight ranks that is half a minute on two
cores; eight forks of one process take a fraction of a second. ``multiprocessing``'s fork server does not fit:
this one must keep import warnings off the terminal, be killable while it imports, and take down everything
that the ranks started.

Started by :mod:`frontrunner.launcher.ranks.local` as the leader of its own session; its first argument is the
request, in JSON. Standard input is a silent pipe: its end means that the launcher is gone.
Standard output carries one JSON object per line: ``{"started": n}`` when all ranks
run, then ``{"rank", "code", "time_s"}`` as each ends (code as ``subprocess`` has it: negative for a
signal). Standard error is a log file.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from frontrunner.launcher.ranks.rank import run_rank
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous


def main() -> None:
    request = json.loads(sys.argv[1])
    lifeline, reports = os.dup(0), os.dup(1)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    for module in request["preload"]:
        importlib.import_module(module)
    # Ranks inherit this mask: a request to stop is held until they handle it (see run_folder/endings.py).
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    gc.freeze()  # the collector would otherwise copy the pages that ranks share
    sys.stdout.flush()
    sys.stderr.flush()
    ranks = {_fork(request, rank, lifeline, reports): rank for rank in range(request["world_size"])}
    _report(reports, {"started": len(ranks)})
    while ranks:
        pid, status = os.wait()
        if pid in ranks:
            code = os.waitstatus_to_exitcode(status)
            _report(reports, {"rank": ranks.pop(pid), "code": code, "time_s": time.time()})


def _fork(request: dict[str, Any], rank: int, lifeline: int, reports: int) -> int:
    """Start one rank and return its process id; does not return in the rank."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.close(reports)
        threading.Thread(target=_die_with_launcher, args=(lifeline,), daemon=True).start()
        rendezvous = Rendezvous(
            rank=rank,
            world_size=request["world_size"],
            local_rank=rank,
            master_addr="127.0.0.1",
            master_port=request["port"],
            source="frontrunner train",
        )
        profile = ProfileRequest(*request["profiled"]) if request.get("profiled") else None
        code = run_rank(request["target"], Path(request["run_dir"]), rendezvous, profile=profile)
    finally:
        # Skip exit handlers: those of libraries may wait for peers that are gone.
        os._exit(code)


def _die_with_launcher(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(0, signal.SIGKILL)


def _report(reports: int, message: dict[str, Any]) -> None:
    os.write(reports, json.dumps(message).encode() + b"\n")
