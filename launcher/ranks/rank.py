"""One rank's process: output goes to its log, a failure to its errors file."""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from frontrunner.configs.errors import SpecError
from frontrunner.configs.plain_files import not_followed
from frontrunner.parallelism import versions
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.run_folder import endings, failures, files
from frontrunner.run_folder.endings import FAILED, INTERRUPTED, TO_BE_CONTINUED, WRONG_REQUEST
from frontrunner.run_folder.records import OnRecord

TRAIN = "frontrunner.parallelism.runtime.train:train"


def threads_per_rank(ranks: int) -> int:
    """Threads for each of ``ranks`` on this machine, without sharing cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks)


def run_rank(
    target: str,
    run_dir: Path,
    rendezvous: Rendezvous,
    on_record: OnRecord | None = None,
    profile: ProfileRequest | None = None,
) -> int:
    """Call ``target`` (``module:function``, with the arguments of ``train``) and return an exit code.

    Returns 0, 75 when stopped on request, 130 when interrupted, 2 for a SpecError and 1 for any other
    failure; both kinds of failure are written to ``errors/rank-N.txt``, if the disk takes them. Raises
    nothing. From here on SIGUSR1 and SIGTERM are requests to stop.
    """
    endings.listen()
    with _output_to(files.log_file(run_dir, rendezvous.rank)):
        try:
            from frontrunner.configs.load import read_resolved

            versions.check()  # before torch is imported: ranks may run on another host than the launcher
            module, _, name = target.partition(":")
            function = getattr(importlib.import_module(module), name)
            if profile is not None:  # which only `train` takes
                function = partial(function, profile=profile)
            function(read_resolved(run_dir / files.SPEC), run_dir, rendezvous, on_record)
        except KeyboardInterrupt:
            return INTERRUPTED
        except endings.Stopped:
            return TO_BE_CONTINUED
        except BaseException as error:  # every failure must reach the user
            with suppress(OSError):  # a full disk may be why it failed
                failures.record(run_dir, rendezvous.rank, error)
            return WRONG_REQUEST if isinstance(error, SpecError) else FAILED
    return 0


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Temporarily redirect standard output and error, also of C++ libraries, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    saved = os.dup(1), os.dup(2)
    with open(log, "a", opener=not_followed) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        faulthandler.enable(file, all_threads=False)
        try:
            yield
        finally:
            _flush()
            faulthandler.disable()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


def _flush() -> None:
    with suppress(OSError):  # the log's disk is full
        sys.stdout.flush()
        sys.stderr.flush()
