"""One rank of a first day: runs the parts in turn, each in a process of its own, and ends those that hang.

A part that crashes, hangs or runs out of memory takes nothing along: a GPU's context, sockets and groups of
ranks go with its process. Ranks meet anew for each part, at a port that the first one chooses.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.first_day import parts
from frontrunner.launcher.first_day.parts import Part
from frontrunner.launcher.ranks.local import PRELOAD
from frontrunner.launcher.ranks.rank import run_rank
from frontrunner.parallelism.rendezvous import Rendezvous, free_port
from frontrunner.run_folder import failures, files
from frontrunner.run_folder.endings import TrainingFailed

TARGET = f"{__name__}:measure_all"
_TICK_S = 0.05
_GRACE_S = 3.0  # after another rank's failure, for this one to end by itself
_LATE_S = 120.0  # the first rank may start later than this one


def measure_all(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Run this rank's share of every part; what fails is written to the part's folder."""
    for module in PRELOAD:  # once here, not in each part
        importlib.import_module(module)
    for part in parts.read(run_dir).parts:
        if part.why_not is None:
            _run(part, run_dir / part.name, rendezvous)


def _run(part: Part, folder: Path, rendezvous: Rendezvous) -> None:
    place = replace(rendezvous, master_port=_port(folder, rendezvous.rank), served=False)
    begin = time.monotonic()
    process = os.fork()
    if process == 0:
        _be_part(part, folder, place)
    code = _ended(process, folder, begin + part.limit_s)
    if code is None:
        _tell_timeout(part, folder, place.rank)
    elif code and (failure := failures.from_exit(folder, place.rank, code, time.time())):
        failures.write(folder, failure)
    if place.rank == 0:
        ended = folder / files.ENDED
        ended.write_text(json.dumps({"seconds": time.monotonic() - begin}), encoding="utf-8")


def _be_part(part: Part, folder: Path, place: Rendezvous) -> None:
    """Does not return, and skips exit handlers: those of libraries may wait for peers that are gone."""
    code = 1
    try:
        code = run_rank(part.target, folder, place)
    finally:
        os._exit(code)


def _ended(process: int, folder: Path, deadline: float) -> int | None:
    """The exit code of a part's process; 0 if it was ended because another rank failed, None if too late."""
    others_failed: float | None = None
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        if others_failed is None and (folder / files.ERRORS).exists():
            others_failed = now
        hangs, alone = now > deadline, others_failed is not None and now > others_failed + _GRACE_S
        if hangs or alone:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return 0 if alone else None
        time.sleep(_TICK_S)


def _tell_timeout(part: Part, folder: Path, rank: int) -> None:
    try:
        where = f", in {files.whereabouts_file(folder, rank).read_text(encoding='utf-8')}"
    except OSError:
        where = ""
    said = f"no end within {part.limit_s:g} s{where}"
    failures.write(folder, failures.Failure(rank, socket.gethostname(), time.time(), said, said))


def _port(folder: Path, rank: int) -> int:
    """A port for the ranks of a part, the same on all of them. Raises TrainingFailed if there is none."""
    path = folder / files.PORT
    if rank == 0:
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(str(free_port()))
        unfinished.replace(path)
    deadline = time.monotonic() + _LATE_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TrainingFailed(f"rank 0 did not begin with {folder.name}: see its log")
        time.sleep(_TICK_S)
    return int(path.read_text())
