"""Parts of a first day that end in every way a part can; each is called as :func:`measure` of a real one."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.run_folder import files


def well(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    """Leaves the port, which all ranks have in common."""
    path = files.result_file(run_dir, rendezvous.rank)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"port": rendezvous.master_port}))


def raises(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    raise ValueError("no such kernel")


def crashes(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    path = files.whereabouts_file(run_dir, rendezvous.rank)
    path.parent.mkdir(exist_ok=True)
    path.write_text("a barrier")
    time.sleep(600)


def first_raises(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    """The other ranks wait for the first one."""
    (raises if rendezvous.rank == 0 else hangs)(spec, run_dir, rendezvous)
