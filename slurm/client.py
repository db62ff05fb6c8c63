"""Calls Slurm's commands without a shell, and translates their errors.

pyslurm is tied to one version of Slurm; the commands are not. Sites differ: without an accounting database
``sacct`` returns nothing, and jobs that ended long ago are unknown.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder.state import JobView
from frontrunner.slurm import states
from frontrunner.slurm.errors import NoAnswer, SlurmFailed

_LIMIT_S = 60.0
_SITE_AT_FAULT = re.compile(
    "Unable to contact slurm controller|Unable to establish|Connection (refused|timed out)|Socket timed out|"
    "Zero Bytes were transmitted|Protocol authentication error|slurm_persist_conn|"
    "Munge|controller .* not respond",
    re.IGNORECASE,
)
# The controller had received the request, and has often created the job.
_ANSWER_LOST = re.compile("Socket timed out|Zero Bytes were transmitted|Connection reset", re.IGNORECASE)
_PERHAPS = "the job may exist anyway: check `squeue --me` before you try again"
# Too many jobs at the moment, in the line above that of all violations of a site's policy.
_TOO_MANY = re.compile(r"\w*MaxSubmitJob\w*")
_LATER = "wait until a job has ended, or ask the site"
#: Pattern of sbatch's message, the run file key it concerns, and one fix.
_REFUSALS = (
    (
        "policy",
        "slurm.qos",
        "request fewer nodes or less time; `sacctmgr show qos` and `show assoc` list your limits",
    ),
    (
        "account",
        "slurm.account",
        "list your accounts with `sacctmgr show assoc user=$USER`",
    ),
    ("partition", "slurm.partition", "see `sinfo -s`"),
    ("qos|quality of service", "slurm.qos", "remove it, or ask the site"),
    ("time limit", "slurm.time_limit", "request less time"),
    ("reservation", "slurm.reservation", "see `scontrol show reservation`"),
    ("node|cpu|gres|memory|processor", "nodes", "list the nodes with `sinfo -N -l`"),
    ("limit", "slurm", _LATER),
)


@dataclass(frozen=True)
class JobState:
    """``state`` and ``reason`` are Slurm's (PENDING, Priority); other fields are empty if unknown.

    ``held_s``: seconds for which it has held its nodes since its last start.
    """

    job_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    time_left: str = ""
    held_s: int = field(default=0, kw_only=True)

    @property
    def active(self) -> bool:
        """Whether it is waiting, running or ending."""
        return self.state not in states.ENDED

    def view(self) -> JobView:
        """What it means for the run."""
        if self.state in states.WAITING:
            return JobView("waiting", states.waiting_text(self.reason))
        if self.active:
            started_s = time.time() - self.held_s if self.held_s else None
            reason = "" if self.state in ("RUNNING", "COMPLETING", "CONFIGURING") else f"Slurm: {self.state}"
            return JobView("running", reason, started_s)
        return JobView("ended", states.ending_text(self.state), cancelled=self.state == "CANCELLED")


#: A line of ``sbatch --parsable``, and what sbatch says without that option.
_JOB = re.compile(r"(\d+)(?:;[\w.-]+)?")
_SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster [\w.-]+)?")
#: An array's jobs have an index.
_JOB_ID = re.compile(r"\d+(?:[_+]\S+)?")
_STATE = re.compile(r"[A-Z_]+")


class Slurm:
    """The Slurm that these environment variables reach (``PATH``, ``SLURM_CONF``)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        # Variables of the user or an enclosing job would override the script, and leak into its job.
        kept = ("SLURM_CONF", "SLURM_CLUSTERS")
        ours = ("SBATCH_", "SLURM_", "SLURMD_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SACCT_")
        self._env = {k: v for k, v in env.items() if k in kept or not k.startswith(ours)}
        self._env["LC_ALL"] = "C.UTF-8"

    def submit(
        self, script: str, folder: Path, options: Sequence[str] = (), holding: Sequence[int] = ()
    ) -> str:
        """The number of a new job that runs ``folder / script``; its output goes to ``folder``.

        Files in ``holding`` stay open while sbatch lives, maybe longer than this process. Raises SpecError if
        Slurm rejects the job, SlurmFailed if it cannot be reached, NoAnswer if it is unknown whether a job
        exists.
        """
        try:
            answer = self._run(["sbatch", "--parsable", *options, script], folder, holding)
        except NoAnswer:
            raise NoAnswer(f"sbatch did not answer within {_LIMIT_S:.0f} s; {_PERHAPS}") from None
        if answer.returncode < 0:
            raise NoAnswer(f"sbatch was killed by signal {-answer.returncode}; {_PERHAPS}")
        if answer.returncode:
            raise self._refused(answer.stderr)
        return _job_number(answer.stdout)

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        """The states of these jobs; jobs that Slurm no longer lists are omitted."""
        wanted = list(dict.fromkeys(job_ids))
        if not wanted:
            return {}
        found = self._queued(wanted)
        missing = [job for job in wanted if job not in found]
        return found | self._accounted(missing) if missing else found

    def count_jobs(self, partition: str | None = None, qos: str | None = None) -> int:
        """Waiting and running jobs of this user."""
        where = [*(["-p", partition] if partition else []), *(["-q", qos] if qos else [])]
        answer = self._run(["squeue", "--me", "--noheader", "--format=%i", "--array", *where])
        if answer.returncode:
            raise _failed("squeue", answer.stderr)
        return sum(1 for line in answer.stdout.splitlines() if _JOB_ID.fullmatch(line.strip()))

    def jobs_in(self, folder: Path, *, ended: bool = True) -> set[str]:
        """Jobs of this user that were submitted in a folder, including ended ones that Slurm still lists."""
        states = ["--states=all"] if ended else []
        answer = self._run(["squeue", "--me", "--noheader", *states, "--format=%i|%Z"])
        if answer.returncode:
            raise _failed("squeue", answer.stderr)
        rows = (line.partition("|") for line in answer.stdout.splitlines())
        # Slurm reports folders without symbolic links; names are compared first, because resolving is slow.
        named = ((job, Path(where)) for job, _, where in rows if Path(where).name == folder.name)
        return {job for job, where in named if _JOB_ID.fullmatch(job) and where.resolve() == folder.resolve()}

    def cancel(self, job_id: str) -> None:
        """Cancel a job; no error if it has already ended."""
        self._checked(["scancel", job_id], "Invalid job id|already completing|already finished")

    def requeue(self, job_id: str) -> None:
        """Requeue a job; Slurm holds it for two minutes."""
        self._checked(["scontrol", "requeue", job_id])

    def partitions(self) -> list[str]:
        """Sorted names; empty if Slurm does not list them."""
        answer = self._run(["sinfo", "--noheader", "--format=%R"])
        lines = {line.strip() for line in answer.stdout.splitlines()} if answer.returncode == 0 else set()
        return sorted(line for line in lines if line and " " not in line)  # not a site's banner

    def _queued(self, job_ids: list[str]) -> dict[str, JobState]:
        command = [
            "squeue",
            "--noheader",
            "--states=all",
            "--format=%i|%T|%r|%N|%L|%M",
            f"--jobs={','.join(job_ids)}",
        ]
        answer = self._run(command)
        if answer.returncode and "Invalid job id" not in answer.stderr:
            raise _failed("squeue", answer.stderr)
        rows = [line.split("|") for line in answer.stdout.splitlines() if line.strip()]
        whole = [row for row in rows if len(row) == 6 and _STATE.fullmatch(row[1])]
        if not whole and any(len(row) > 1 for row in rows):  # not only a site's banner
            shown = _shown(answer.stdout)
            raise SlurmFailed(f"squeue answered {shown}, which is not the list that was asked for")
        return {row[0]: JobState(*row[:5], held_s=_elapsed(row[5])) for row in whole if row[0] in job_ids}

    def _accounted(self, job_ids: list[str]) -> dict[str, JobState]:
        columns = "--format=JobID,State,NodeList,ElapsedRaw"
        command = ["sacct", "-X", "-n", "-P", columns, f"--jobs={','.join(job_ids)}"]
        try:
            answer = self._run(command)
        except (SpecError, SlurmFailed):  # not every site has it
            return {}
        if answer.returncode:
            return {}
        rows = (line.split("|") for line in answer.stdout.splitlines())
        return {
            row[0]: JobState(row[0], row[1].split()[0], "", row[2], held_s=int(row[3] or 0))
            for row in rows
            if len(row) == 4 and row[0] in job_ids and row[1].strip() and (row[3] or "0").isdigit()
        }

    def _refused(self, stderr: str) -> SpecError | SlurmFailed:
        """Translates an error of sbatch."""
        message = _last_line(stderr)
        if _ANSWER_LOST.search(stderr):
            return NoAnswer(f"Slurm does not answer: {message}; {_PERHAPS}")
        if _SITE_AT_FAULT.search(stderr):
            return SlurmFailed(f"Slurm does not answer: {message}; nothing was submitted, try again later")
        if too_many := _TOO_MANY.search(stderr):
            return SpecError([Violation("slurm", None, f"Slurm rejected it: {too_many[0]}", _LATER)])
        for words, key, fix in _REFUSALS:
            if re.search(words, message, re.IGNORECASE):
                names = self.partitions() if key == "slurm.partition" else []
                fix = f"use one of: {', '.join(names)}" if names else fix
                return SpecError([Violation(key, None, f"Slurm rejected it: {message}", fix)])
        return SlurmFailed(f"sbatch: {message}; nothing was submitted")

    def _checked(self, command: list[str], harmless: str | None = None) -> None:
        answer = self._run(command)
        if answer.returncode and not (harmless and re.search(harmless, answer.stderr)):
            raise _failed(command[0], answer.stderr)

    def _run(
        self, command: list[str], folder: Path | None = None, holding: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_LIMIT_S,
                check=False,
                pass_fds=holding,
            )
        except FileNotFoundError as error:
            if folder is not None and not folder.is_dir():
                raise
            assert error.filename is not None
            raise SpecError(
                [
                    Violation(
                        "",
                        None,
                        f"{command[0]} is not on the PATH: Slurm is not available here",
                        "run this on a login node, or use `frontrunner train` to run here",
                    )
                ]
            ) from None
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"{command[0]} did not answer within {_LIMIT_S:.0f} s; try again later") from None


def _job_number(answer: str) -> str:
    """The job's number in sbatch's answer: sites wrap sbatch, and their programs print more lines.

    NoAnswer if there is none, or more than one.
    """
    lines = [line.strip() for line in answer.splitlines()]
    found = [match[1] for line in lines if (match := _JOB.fullmatch(line) or _SUBMITTED.fullmatch(line))]
    if len(set(found)) != 1:
        number = "no job number" if not found else "several job numbers"
        raise NoAnswer(f"sbatch answered {_shown(answer)}, with {number}; {_PERHAPS}")
    return found[0]


def _shown(answer: str) -> str:
    """An answer in one line, for messages."""
    text = " ".join(answer.split())
    return f'"{text[:120]}..."' if len(text) > 120 else f'"{text}"' if text else "nothing"


def _elapsed(text: str) -> int:
    """Seconds of squeue's ``1-02:03:04``, ``2:03:04`` or ``3:04``; 0 if unknown."""
    days, _, clock = text.rpartition("-")
    try:
        hours, minutes, rest = [0, 0, *(int(part) for part in clock.split(":"))][-3:]
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + rest
    except ValueError:
        return 0


def _failed(program: str, stderr: str) -> SlurmFailed:
    return SlurmFailed(f"{program}: {_last_line(stderr)}; try again later, or ask the site")


def _last_line(stderr: str) -> str:
    """The message without the program's name; the cause is the last line, or one with ``error:``."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line] or lines or ["no reason given"]
    return re.sub(r"^\w+: (error: )?", "", told[-1])
