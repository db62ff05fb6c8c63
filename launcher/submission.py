"""The parts of ``submit``: resolve the request, check it, and submit it or leave no trace."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from frontrunner.configs.data import DataSpec
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import Document, dump
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.units import bytes_text, duration_text
from frontrunner.launcher.continuing import prospects
from frontrunner.launcher.runs import Runs
from frontrunner.launcher.verify import verified
from frontrunner.parallelism.corpus import check_data, is_here
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.plan import Estimate, estimate
from frontrunner.run_folder import checkpoints, files, jobs
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.jobs import Chain
from frontrunner.run_folder.record_reader import last_step
from frontrunner.run_folder.start import check_start
from frontrunner.slurm import exclusions, policy
from frontrunner.slurm.client import Slurm
from frontrunner.slurm.errors import NoAnswer
from frontrunner.slurm.job import JobSpec, of_run
from frontrunner.slurm.policy import Schedule
from frontrunner.slurm.script import render


def run_folder_of(run: str) -> Path | None:
    """The run folder that ``run`` names; None if it is a run file or preset."""
    path = Path(run)
    return path.absolute() if files.holds_run(path) else None


def go_where_it_ran(continued: Path) -> None:
    """Change to the working directory of an earlier submission, for its relative paths."""
    folder = jobs.read(continued).working_folder
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)


def default_folder(spec: RunSpec) -> Path:
    return run_folder.dated(spec.name)


def resolve(run: str, continued: Path | None, overrides: Sequence[str], env: Mapping[str, str]) -> Document:
    """The requested run, with the account that sites tell users to set in their environment."""
    path = str(continued / files.SPEC) if continued else run
    document, _ = verified(path, overrides)
    usual = env.get("SBATCH_ACCOUNT")  # sites tell users to set their account there
    if document.spec.slurm.account is None and usual:
        document, _ = verified(path, [*overrides, f"slurm.account={usual}"])
    return document


def prepare(
    document: Document, folder: Path, *, force: bool, continues: bool = False, preview: bool = False
) -> tuple[JobSpec, Schedule, list[str]]:
    """The job, its schedule and notes for the user; SpecError lists everything that prevents it.

    For a ``preview`` a missing account, or a corpus that is on another machine, is only a note.
    """
    spec = document.spec
    violations: list[Violation] = []
    schedule = None
    notes: list[str] = []
    try:
        schedule = policy.schedule(spec, preview=preview)
        notes = _fit_notes(document, schedule, force=force)
        notes += _missing_notes(spec) if preview else []
    except SpecError as error:
        violations += document.annotate(error).violations
    try:
        if not (continues and checkpoints.found(folder)):  # else it goes on from its own
            check_start(spec)
    except SpecError as error:
        violations += document.annotate(error).violations
    try:
        if not preview or _corpus_is_here(spec):
            check_data(spec)
        if continues:
            notes += [f"the run {line}" for line in prospects(folder, spec)]
    except SpecError as error:
        violations += document.annotate(error).violations
    if violations or schedule is None:
        raise SpecError(violations)
    sick = exclusions.read(exclusions.file_of(spec.machine.name))
    if sick:
        notes.append(f"note: {', '.join(sick)} excluded by {exclusions.file_of(spec.machine.name)}")
        avoiding = {"exclude": exclusions.joined(spec.slurm.exclude, sick)}
        spec = spec.model_copy(update={"slurm": spec.slurm.model_copy(update=avoiding)})
    try:
        return of_run(spec, schedule, folder, Path.cwd(), executable()), schedule, notes
    except SpecError as error:
        raise document.annotate(error) from None


def _corpus_is_here(spec: RunSpec) -> bool:
    return not isinstance(spec.data, DataSpec) or is_here(spec.data)


def _missing_notes(spec: RunSpec) -> list[str]:
    """What a submission needs that a preview does without."""
    notes = [f"note: {violation.constraint}: {violation.fix}" for violation in policy.identity(spec)]
    if isinstance(spec.data, DataSpec) and not is_here(spec.data):
        train = spec.data.train
        notes.append(f"note: {train}.bin and .idx are not on this machine, so they were not checked")
    return notes


def planned(spec: RunSpec) -> Estimate:
    """The planner's estimate of a run."""
    return estimate(Workload.of(spec, None), Candidates.of(spec, Layout.from_spec(spec)))


def _fit_notes(document: Document, schedule: Schedule, *, force: bool) -> list[str]:
    """Notes from the planner; SpecError if the run cannot fit, unless ``force`` is set."""
    spec = document.spec
    estimated = planned(spec)
    notes = []
    if not estimated.fits[0]:
        peak, capacity = float(estimated.memory.peak[0]), float(spec.machine.device.memory_bytes)
        what = f"needs {bytes_text(peak)} of a device's {bytes_text(capacity)}"
        if not force:
            fix = "run `frontrunner plan` for fixes, or use --force"
            raise document.annotate(SpecError([Violation("layout", None, f"cannot fit: {what}", fix)]))
        notes.append(f"warning: the planner predicts that the run {what}")
    if estimated.time is not None:
        needed = float(estimated.time.total[0]) * spec.training.steps
        if needed > schedule.total_s:
            notes.append(
                f"note: the planner predicts {duration_text(needed)} for {spec.training.steps} steps, but "
                f"slurm.time_limit is {duration_text(schedule.total_s)}"
            )
    return notes


def executable() -> str:
    """Path of this environment's frontrunner, for jobs."""
    beside = Path(sys.executable).with_name("frontrunner")
    return str(beside) if beside.exists() else shutil.which("frontrunner") or "frontrunner"


def send(
    document: Document,
    job: JobSpec,
    schedule: Schedule,
    folder: Path,
    *,
    new: bool,
    holding: Sequence[int] = (),
) -> tuple[str, str]:
    """Write the run folder and submit; returns job number and script. sbatch keeps ``holding`` open.

    Of two that submit or train one run at once, one is refused. After a failure no job is left, and a new run
    leaves no files. If it is unknown whether a job exists
    (NoAnswer, or an interruption), the files stay, because the job would need them.
    """
    slurm = Slurm(os.environ)
    known = _check_idle(folder)
    queued = slurm.count_jobs(schedule.partition, schedule.qos) if schedule.queue else 0
    refusal = policy.too_many_jobs(document.spec, schedule.queue, queued)
    if refusal:
        raise refusal
    script = render(job)
    with _storage(folder), _undone_unless_sent(folder, new), _kept_idle(folder, known, new):
        if new:
            run_folder.create(folder, document.spec)
        else:
            _replace(folder / files.SPEC, dump(document.spec))
        (folder / files.LOGS).mkdir(exist_ok=True)
        _replace(folder / files.SCRIPT, script)
        jobs.append(
            folder,
            "begun",
            segments=schedule.segments,
            working_folder=job.working_folder,
            name=document.spec.name,
            steps=document.spec.training.steps,
        )
        try:
            job_id = slurm.submit(files.SCRIPT, folder, holding=holding)
        except SpecError as error:
            raise document.annotate(error) from None
        try:
            jobs.append(folder, "submitted", job_id=job_id, step=last_step(folder))
        except BaseException:
            slurm.cancel(job_id)
            raise
    return job_id, script


def _check_idle(folder: Path) -> Chain:
    """The run's jobs so far, none of which waits or runs.

    SpecError if one does, or it runs on this machine; SlurmFailed if Slurm does not say.
    """
    runs = Runs([folder], os.environ)
    if runs.problem is not None:
        raise runs.problem
    if folder in runs.unreadable:
        fix = "repair or remove the file"
        raise SpecError([Violation("", str(folder), runs.unreadable[folder], fix)])
    last, now = runs.chains[folder].last, runs.state(folder)
    if now.active:
        what = f"job {last.job_id} of this run" if last and runs.job(folder) else "this run"
        fix = "wait for it, or `frontrunner cancel` it"
        raise SpecError([Violation("", str(folder), f"{what} is {now.state}", fix)])
    return runs.chains[folder]


@contextmanager
def _kept_idle(folder: Path, known: Chain, new: bool) -> Iterator[None]:
    """Nobody else trains or submits the run meanwhile; SpecError if somebody did since ``known`` was read."""
    if new:  # only one process can create it
        yield
        return
    with run_folder.claimed(folder):
        if jobs.read(folder) != known:
            fix = f"see `frontrunner status {shlex.quote(str(folder))}`"
            raise SpecError([Violation("", str(folder), "another process has just submitted this run", fix)])
        yield


@contextmanager
def _undone_unless_sent(folder: Path, new: bool) -> Iterator[None]:
    """Remove a new run's files if the submission certainly failed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except (NoAnswer, KeyboardInterrupt):
        raise
    except BaseException as error:
        in_use = isinstance(error, SpecError) and any(v.path == "--run-dir" for v in error.violations)
        if new and not in_use:
            for name in (files.SPEC, files.SCRIPT, files.JOBS):
                (folder / name).unlink(missing_ok=True)
            for path in (folder / files.LOGS, *made):
                if path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        raise


@contextmanager
def _storage(folder: Path) -> Iterator[None]:
    """Reports a full disk or quota as a SpecError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EDQUOT, errno.ENOSPC):
            raise
        what = "quota is exhausted" if error.errno == errno.EDQUOT else "disk is full"
        constraint = f"the {what}; nothing was submitted"
        fix = "remove old runs, or set --run-dir to another file system"
        raise SpecError([Violation("--run-dir", str(folder), constraint, fix)]) from None


def _replace(path: Path, text: str) -> None:
    """Write a file atomically; file names that are not Unicode are kept as they are."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(text.encode("utf-8", "surrogateescape"))
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
