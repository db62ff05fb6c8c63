"""Runs one rank that srun, mpirun or torchrun started."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.display.watch import Watch
from frontrunner.launcher.errors import RunFailed, RunStopped, report
from frontrunner.launcher.ranks.rank import TRAIN, run_rank, threads_per_rank
from frontrunner.launcher.ranks.request import Request
from frontrunner.parallelism.rendezvous import LOOPBACK, Rendezvous
from frontrunner.run_folder import failures, files
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.endings import INTERRUPTED, TO_BE_CONTINUED, WRONG_REQUEST, settled

_FOLDER_LIMIT_S = 600.0  # the processes of a large job start minutes apart
_PREDECESSOR_S = 120.0  # ranks of a requeued job may take a while to end
_ECHO_DELAY_S = 2.0  # lets the rank at fault report before the ranks that lost their connection to it


class _Silent(Exception):
    """End with ``code`` and leave the explanation to another rank."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def train_as_rank(place: Rendezvous, request: Request, target: str = TRAIN) -> dict[str, Any] | None:
    """Run this rank to the end; returns the ``--json`` object on rank 0, None on the others.

    Rank 0 makes the run folder and shows the run in plain lines. Exactly one rank reports a failure. A
    failed rank ends this process at once, without exit handlers of libraries, which would wait for peers
    that are gone.
    """
    try:
        if place.rank == 0:
            return _first_rank(place, request, target)
        _other_rank(place, request, target)
        return None
    except _Silent as silent:
        # Launchers kill all ranks when one fails, maybe before the failure is reported. Each ends with its
        # own code all the same: the largest of them decides what follows.
        settled()
        time.sleep(_ECHO_DELAY_S)
        os._exit(silent.code)
    except KeyboardInterrupt as error:
        os._exit(report(error, request.as_json) if place.rank == 0 else INTERRUPTED)
    except BaseException as error:
        os._exit(report(error, request.as_json))


def _first_rank(place: Rendezvous, request: Request, target: str) -> dict[str, Any]:
    spec, folder = _prepare(place, request)
    # A copy of the descriptor: the original is redirected to the log while the rank runs.
    output = os.fdopen(os.dup(2 if request.as_json else 1), "w")
    with (
        run_folder.opened(folder, spec, continues=request.continues, patience_s=_PREDECESSOR_S),
        output,
        Watch(folder, spec.training.steps, request.trackers, output, live=False) as watch,
    ):
        watch.say(f"{spec.name}: {spec.world_size} ranks of {place.source}; run folder {folder}")
        code = run_rank(target, folder, place, watch.record, request.profile)
        if code:
            raise _explanation(folder, place, code)
        return watch.finish()


def _other_rank(place: Rendezvous, request: Request, target: str) -> None:
    try:
        spec, folder = _prepare(place, request)
        run_folder.wait_for(folder, spec, _FOLDER_LIMIT_S, continues=request.continues)
        code = run_rank(target, folder, place, profile=request.profile)
    except SpecError:  # rank 0 finds and reports the same
        raise _Silent(WRONG_REQUEST) from None
    if code:
        raise _explanation(folder, place, code)


def _prepare(place: Rendezvous, request: Request) -> tuple[RunSpec, Path]:
    spec = request.resolve(place)
    set_environment(place, min(spec.world_size, spec.machine.devices_per_node))
    return spec, request.folder or run_folder.of_job(spec.name, os.environ)


def set_environment(place: Rendezvous, ranks_here: int) -> None:
    """What torch and the collective libraries read as they are loaded; ``ranks_here`` share this machine."""
    # By default, torch uses all cores for each rank.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_per_rank(ranks_here)))
    if place.on_one_machine:
        os.environ.update(LOOPBACK)


def _explanation(folder: Path, place: Rendezvous, code: int) -> BaseException:
    """The error to raise after :func:`run_rank` returned ``code``; exactly one rank reports it."""
    if code == INTERRUPTED:
        return KeyboardInterrupt()
    if code == TO_BE_CONTINUED:
        stopped = RunStopped(f"stopped on request; to continue: {run_folder.how_to_go_on(folder)}")
        return stopped if place.rank == 0 else _Silent(code)
    failure = failures.from_exit(folder, place.rank, code, time.time())
    assert failure is not None, "the code is not 0"
    if failure.secondary:
        time.sleep(_ECHO_DELAY_S)
    try:
        files.explained_file(folder).touch(exist_ok=False)
    except FileExistsError:
        return _Silent(code)
    except OSError:  # a full disk may be why it failed
        pass
    if failure.violations:
        return SpecError(failure.violations)
    return RunFailed(failure.explanation(place.world_size, folder))
