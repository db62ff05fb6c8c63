"""``frontrunner continue``: the last line of a job. It closes a segment and submits the next."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.launcher.display.terminal import say

if TYPE_CHECKING:
    from frontrunner.configs.schema import RunSpec
    from frontrunner.run_folder.jobs import Chain
    from frontrunner.slurm.policy import Schedule

_TRIES = 5
_PAUSE_S = 10.0


def continue_run(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The run folder.")],
    exit_code: Annotated[int, typer.Option(help="Exit code of the ranks.")],
) -> None:
    """Finish a job of a run and submit the next segment if there is one.

    Job scripts call this; to continue a run yourself, use `frontrunner submit RUN_DIR`.
    """
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.configs.load import read_resolved
    from frontrunner.launcher.advice import memory_advice
    from frontrunner.run_folder import failures, files, jobs
    from frontrunner.run_folder.endings import INTERRUPTED, TO_BE_CONTINUED
    from frontrunner.run_folder.record_reader import last_step
    from frontrunner.slurm import chain, policy

    job_id = os.environ.get("SLURM_JOB_ID")
    if not job_id:
        constraint = "is not set: only job scripts call this command"
        raise SpecError([Violation("SLURM_JOB_ID", None, constraint, "use `frontrunner submit RUN_DIR`")])
    if not files.holds_run(run_dir):
        fix = "name the run folder of the job"
        raise SpecError([Violation("", str(run_dir), "is not the folder of a run", fix)])
    spec = read_resolved(run_dir / files.SPEC)
    schedule = policy.schedule(spec)
    exit_code = failures.code_of_job(run_dir, exit_code)
    said = exit_code not in (0, TO_BE_CONTINUED, INTERRUPTED)
    error = failures.of_job(run_dir, files.job_log(run_dir, job_id), exit_code) if said else ""
    ended = {"code": exit_code, "step": last_step(run_dir), "held_s": _age_s(), "error": error}
    jobs.append(run_dir, "ended", job_id=job_id, **ended)
    so_far = jobs.read(run_dir)
    decision = chain.decide(so_far, schedule.segments)
    if decision.action == "next":
        _follow(run_dir, spec, schedule, so_far, job_id)
        return
    jobs.append(run_dir, "verdict", reason=decision.reason)
    say(f"frontrunner: no further segment: {decision.reason}")
    if error:
        say(f"frontrunner: {error}")
    for line in memory_advice(spec) if failures.out_of_memory(error) else ():
        say(f"frontrunner: {line}")
    raise typer.Exit(exit_code)


def _age_s() -> float:
    """Seconds since the job script started: exec replaced it with this process."""
    fields = (
        Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    )  # from the third field on (proc(5))
    began = int(fields[22 - 3]) / os.sysconf("SC_CLK_TCK")
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) - began, 1)


def _follow(run_dir: Path, spec: RunSpec, schedule: Schedule, so_far: Chain, job_id: str) -> None:
    """Queue the next segment, by the site's method."""
    from frontrunner.configs.slurm import clock
    from frontrunner.run_folder import files, jobs
    from frontrunner.run_folder.record_reader import last_step
    from frontrunner.slurm.client import Slurm

    slurm = Slurm(os.environ)
    number = len(so_far.segments) + 1
    step = last_step(run_dir)
    if spec.machine.site.chain == "requeue":
        jobs.append(run_dir, "submitted", job_id=job_id, step=step)
        say(f"frontrunner: segment {number} of {schedule.segments} is this job, requeued")
        slurm.requeue(job_id)
        return
    options = [f"--dependency=afterany:{job_id}", f"--time={clock(schedule.time_s(number))}"]
    try:
        following = _persistently(
            lambda: slurm.submit(files.SCRIPT, run_dir, options),
            lambda: slurm.jobs_in(run_dir, ended=False) - {job_id},
        )
    except Exception as error:
        jobs.append(run_dir, "verdict", reason=f"segment {number} could not be submitted: {error}")
        raise
    jobs.append(run_dir, "submitted", job_id=following, step=step)
    if jobs.read(run_dir).cancelled:  # meanwhile, by a command that did not see this job
        slurm.cancel(following)
    say(f"frontrunner: segment {number} of {schedule.segments} is job {following}")


def _persistently(submit: Callable[[], str], made: Callable[[], set[str]]) -> str:
    """Retry while the controller does not answer: nobody is there to retry.

    If an answer was lost, use the job that was ``made`` anyway.
    """
    from frontrunner.slurm.errors import NoAnswer, SlurmFailed

    tries, lost = 0, False
    while True:
        tries += 1
        try:
            found = made() if lost else set()
            return found.pop() if found else submit()
        except SlurmFailed as error:
            if tries == _TRIES:
                raise
            lost = lost or isinstance(error, NoAnswer)
            say(f"frontrunner: {error}")
            time.sleep(_PAUSE_S)
