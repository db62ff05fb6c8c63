"""Creates, finds and locks the folder of a run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import dump
from frontrunner.configs.plain_files import not_followed, read_plain
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.yaml_tree import LARGEST_FILE
from frontrunner.run_folder import failures, files, locks
from frontrunner.run_folder.endings import TrainingFailed
from frontrunner.run_folder.record_reader import last_records, summary
from frontrunner.run_folder.record_writer import RecordWriter

# Without Slurm's step id: mpirun in a job starts some ranks inside a step and some outside.
_JOB_IDS = ("PMIX_NAMESPACE", "PALS_APID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT")


def dated(name: str) -> Path:
    """``runs/NAME-DATE-TIME`` for a run started by this process alone."""
    base = Path("runs") / f"{as_file_name(name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = [base, *(base.with_name(f"{base.name}-{n}") for n in range(2, 100))]
    return next((path for path in candidates if not path.exists()), base)


def of_job(name: str, env: Mapping[str, str]) -> Path:
    """``runs/NAME-JOB``, the same on every rank of a job without communication; SpecError without an id."""
    # torchrun's default id, shared by all runs, is "none".
    job = next((env[key] for key in _JOB_IDS if env.get(key, "none") != "none"), None)
    if job is None:
        constraint = f"is required: no job id is set ({', '.join(_JOB_IDS)})"
        raise SpecError([Violation("--run-dir", None, constraint, "give --run-dir DIR")])
    return Path("runs") / f"{as_file_name(name)}-{as_file_name(job)}"


def check_unused(run_dir: Path, option: str = "--run-dir", command: str = "train") -> None:
    """Raise SpecError, about ``option``, if the folder already contains a run or is not a folder.

    ``command`` is what would continue the run.
    """
    held = [name for name in (files.RECORDS, files.SPEC) if (run_dir / name).exists()]
    if held:
        raise _in_use(run_dir, f"already contains a run ({' and '.join(held)})", option, command)
    above = next((path for path in (run_dir, *run_dir.absolute().parents) if path.exists()), run_dir)
    if above.exists() and not above.is_dir():
        where = "is not a folder" if above == run_dir else f"is in {above}, which is not a folder"
        raise _in_use(run_dir, where, option)


def create(run_dir: Path, spec: RunSpec) -> None:
    """Create the folder and, atomically, its ``run.yaml``; of two callers, one gets SpecError."""
    check_unused(run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _in_use(run_dir, f"cannot be made ({error.strerror})") from None
    unfinished = run_dir / f".{files.SPEC}.{os.getpid()}"
    try:
        unfinished.write_text(dump(spec), encoding="utf-8")
        os.link(unfinished, run_dir / files.SPEC)
    except FileExistsError:
        raise _in_use(run_dir, f"already contains a run ({files.SPEC})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def check_unfinished(run_dir: Path, spec: RunSpec) -> None:
    """Raise SpecError if the run has taken all steps that ``spec`` asks for."""
    ended = summary(run_dir)
    if ended is not None and (done := ended.get("steps", 0)) >= spec.training.steps:
        constraint = f"the run in {run_dir} is complete after {done} steps"
        fix = f"raise it to continue, e.g. -o training.steps={2 * done}"
        raise SpecError([Violation("training.steps", spec.training.steps, constraint, fix)])


def reopen(run_dir: Path, spec: RunSpec) -> None:
    """Prepare the folder of an earlier run to continue as ``spec``; clears earlier failures.

    Raises SpecError if the run is complete.
    """
    check_unfinished(run_dir, spec)
    if read_plain(run_dir / files.SPEC, LARGEST_FILE).decode(errors="replace") != dump(spec):
        unfinished = run_dir / f".{files.SPEC}.{os.getpid()}"
        unfinished.write_text(dump(spec), encoding="utf-8")
        unfinished.replace(run_dir / files.SPEC)
    clear_failures(run_dir)


def clear_failures(run_dir: Path) -> None:
    """Remove what the ranks of an earlier start wrote about their failures."""
    for name in (files.ERRORS, files.STACKS):
        shutil.rmtree(run_dir / name, ignore_errors=True)


@contextmanager
def claimed(run_dir: Path, patience_s: float = 0.0) -> Iterator[TextIO]:
    """The lock of an existing run folder: nobody else trains in it or submits it meanwhile.

    SpecError if another process holds the lock for longer than ``patience_s``, or if what is written would
    go elsewhere or nowhere. ``checkpoints`` may be a link, to larger storage.
    """
    for name in (files.ERRORS, files.LOGS, files.STACKS):
        if (run_dir / name).is_symlink():
            constraint = f"{name} is a link: what the ranks write would go elsewhere"
            raise SpecError([Violation("", str(run_dir), constraint, "remove it")])
    for name in (files.RECORDS, files.JOBS):
        if (run_dir / name).exists() and not (run_dir / name).is_file():
            raise SpecError([Violation("", str(run_dir), f"{name} is no file", "move it away")])
    with _storage(run_dir):
        file = open(run_dir / files.LOCK, "a", opener=not_followed)  # noqa: SIM115
    with file as lock:
        deadline = time.monotonic() + patience_s
        while not locks.take(lock):
            if time.monotonic() >= deadline:
                constraint, fix = "another process is running in this folder", "wait until it ends"
                raise SpecError([Violation("", str(run_dir), constraint, fix)])
            time.sleep(0.5)
        yield lock


@contextmanager
def opened(
    run_dir: Path,
    spec: RunSpec,
    *,
    continues: bool,
    patience_s: float = 0.0,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """The run folder, created or reopened, and locked.

    SpecError if another process holds the lock for longer than ``patience_s``. ``check`` may refuse as well,
    before an earlier run is touched, when nobody else can change it any more.
    """
    with _storage(run_dir):
        if not continues:
            create(run_dir, spec)
        failures.try_writing(run_dir)
    with claimed(run_dir, patience_s) as lock:
        check()
        if continues:
            with _storage(run_dir):
                reopen(run_dir, spec)
        locks.note_start(lock, os.environ.get("SLURM_JOB_ID"), spec.training.steps)
        written = _size(run_dir / files.RECORDS)
        try:
            yield
        except BaseException as error:
            if not (_size(run_dir / files.RECORDS) > written and _stopped(run_dir)):
                _note_end(run_dir, error)
            raise


@contextmanager
def _storage(run_dir: Path) -> Iterator[None]:
    """Reports a folder that cannot be written as a SpecError."""
    try:
        yield
    except OSError as error:
        constraint, fix = f"cannot be written ({error.strerror})", "free some space, or make it writable"
        raise SpecError([Violation("", str(run_dir), constraint, fix)]) from None


def _note_end(run_dir: Path, error: BaseException) -> None:
    """Record that the run failed or was interrupted; all ranks have ended."""
    interrupted = isinstance(error, KeyboardInterrupt)
    written = None if interrupted else failures.first_cause(run_dir)
    first = "" if interrupted else next(iter(str(error).splitlines()), type(error).__name__)
    with suppress(OSError), RecordWriter(run_dir) as writer:  # a full disk may be why it failed
        message = written.summary if written else first
        writer.write("ended", how="interrupted" if interrupted else "failed", message=message)


def _stopped(run_dir: Path) -> bool:
    return any(record["kind"] == "stopped" for record in last_records(run_dir)[-1:])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def how_to_go_on(run_dir: Path, command: str = "train") -> str:
    """The shell command that continues a run."""
    return f"frontrunner {command} {shlex.quote(str(run_dir))}"


def wait_for(run_dir: Path, spec: RunSpec, limit_s: float, *, continues: bool) -> None:
    """Wait until rank 0 has created or reopened the folder for ``spec``; TrainingFailed after the limit.

    Raises SpecError if it contains an earlier run that should not be continued.
    """
    records = run_dir / files.RECORDS
    if not continues and records.exists() and records.stat().st_size:
        raise _in_use(run_dir, f"already contains a run ({files.RECORDS})")
    deadline = time.monotonic() + limit_s
    file, text = run_dir / files.SPEC, dump(spec)
    while not (file.exists() and file.read_text(encoding="utf-8") == text):
        if time.monotonic() > deadline:
            raise TrainingFailed(f"rank 0 did not write {file} within {limit_s:.0f} s")
        time.sleep(0.1)


def as_file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "run"


def _in_use(run_dir: Path, constraint: str, option: str = "--run-dir", command: str = "train") -> SpecError:
    continued = f", or continue it: {how_to_go_on(run_dir, command)}" if files.holds_run(run_dir) else ""
    return SpecError(
        [
            Violation(
                option,
                str(run_dir),
                constraint,
                f"choose another folder{continued}",
            )
        ]
    )
