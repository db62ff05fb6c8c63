"""``frontrunner logs``: the output of a run."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from frontrunner.configs.plain_files import open_plain
from frontrunner.launcher.display.terminal import log_text, say

_EVERY_S, _ASK_EVERY_S = 1.0, 10.0


def logs(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run folder.")],
    rank: Annotated[
        int | None, typer.Option(min=0, help="Print the log of this rank, not the jobs' output.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Keep printing while the run is active.")
    ] = False,
    lines: Annotated[int | None, typer.Option(min=0, help="Print only the last N lines.")] = None,
) -> None:
    """Print the output of all jobs of a run, oldest first, or of one rank.

    A run on this machine has no jobs: the log of its rank 0 is printed.
    """
    from frontrunner.run_folder import files
    from frontrunner.run_folder.folder import how_to_go_on
    from frontrunner.run_folder.jobs import read

    if not files.holds_run(run_dir):
        _refuse(run_dir, "is not the folder of a run", "list runs with `frontrunner status`")
    if rank is None and not read(run_dir).segments:
        rank = 0  # it was not submitted: its ranks' logs are all there is
    if rank is not None and not files.log_file(run_dir, rank).exists():
        if not (run_dir / files.LOGS).exists():
            _refuse(run_dir, "has no logs: it has not started", f"start it with `{how_to_go_on(run_dir)}`")
        _refuse(run_dir, f"has no log of rank {rank}", "name a rank that has one, or omit --rank")
    wanted = _files(run_dir, rank)
    if not wanted:
        say("its jobs have written no output yet")
    text = b"".join(_read(path) for path in wanted)
    shown = text if lines is None else b"".join(text.splitlines(keepends=True)[-lines:] if lines else [])
    _write(shown)
    if follow:
        _follow(run_dir, {path: path.stat().st_size for path in wanted}, rank)


def _read(path: Path) -> bytes:
    with open_plain(path) as file:
        return file.read()


def _files(run_dir: Path, rank: int | None) -> list[Path]:
    from frontrunner.run_folder import files

    return files.job_logs(run_dir) if rank is None else [files.log_file(run_dir, rank)]


def _follow(run_dir: Path, read_so_far: dict[Path, int], rank: int | None) -> None:
    """Print new output, also of later segments, until the run is over; then say how it ended."""
    from frontrunner.launcher.runs import Runs

    runs = Runs([run_dir], os.environ)
    asked_s = time.monotonic()
    while True:
        if time.monotonic() - asked_s > _ASK_EVERY_S:
            runs.refresh()
            asked_s = time.monotonic()
        # Before the files are read: what is written last must still be shown.
        state, job = runs.state(run_dir), runs.view(run_dir)
        for path in _files(run_dir, rank):
            with open_plain(path) as file:
                file.seek(read_so_far.get(path, 0))
                _write(file.read())
                read_so_far[path] = file.tell()
        if not state.active and job.phase not in ("waiting", "running", "not asked"):
            break
        if job.phase == "not asked" and runs.problem is not None:
            raise runs.problem
        time.sleep(_EVERY_S)
    said = [text for text in (state.last_error, state.reason) if text]
    say(": ".join([f"the run is {state.state}", *said]))


def _write(data: bytes) -> None:
    """The bytes as they are, but for a terminal, which would obey what they hold."""
    if sys.stdout.isatty():
        sys.stdout.write(log_text(data))
    else:
        sys.stdout.buffer.write(data)
    sys.stdout.flush()


def _refuse(run_dir: Path, constraint: str, fix: str) -> NoReturn:
    from frontrunner.configs.errors import SpecError, Violation

    raise SpecError([Violation("", str(run_dir), constraint, fix)])
