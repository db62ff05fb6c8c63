"""Slurm's own commands, called without a shell, and their complaints in the project's words.

pyslurm is tied to one version of Slurm; the commands are not. Sites differ in which they have: without
an accounting database ``sacct`` answers nothing, and jobs that ended long ago are unknown.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.slurm.errors import NoAnswer, SlurmFailed

_LIMIT_S = 60.0
_SITE_AT_FAULT = re.compile(
    "Unable to contact slurm controller|Unable to establish|Connection (refused|timed out)|Socket timed out|"
    "Zero Bytes were transmitted|Protocol authentication error|slurm_persist_conn|"
    "Munge|controller .* not respond",
    re.IGNORECASE,
)
# The controller had the request by then, and has often made the job.
_ANSWER_LOST = re.compile("Socket timed out|Zero Bytes were transmitted|Connection reset", re.IGNORECASE)
_PERHAPS = "it may have the job all the same: see `squeue --me` before you try again"
# Too many jobs at the moment, in the line above that of all violations of a site's policy.
_TOO_MANY = re.compile(r"\w*MaxSubmitJob\w*")
_LATER = "wait until a job has ended, or ask the site"
#: What sbatch says, the key of the run file that it means, and one thing to do.
_REFUSALS = (
    (
        "policy",
        "slurm.qos",
        "ask for fewer nodes or less time; `sacctmgr show qos` and `show assoc` say what you may have",
    ),
    (
        "account",
        "slurm.account",
        "ask your project for its name at the site (`sacctmgr show assoc user=$USER`)",
    ),
    ("partition", "slurm.partition", "see `sinfo -s`"),
    ("qos|quality of service", "slurm.qos", "leave it out, or ask the site"),
    ("time limit", "slurm.time_limit", "ask for less time"),
    ("reservation", "slurm.reservation", "see `scontrol show reservation`"),
    ("node|cpu|gres|memory|processor", "nodes", "see `sinfo -N -l` for what nodes there are"),
    ("limit", "slurm", _LATER),
)


@dataclass(frozen=True)
class JobState:
    """``state`` and ``reason`` are Slurm's words (PENDING, Priority); the rest is empty where unknown.

    ``held_s``: seconds for which it has had its nodes, since its last start.
    """

    job_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    time_left: str = ""
    held_s: int = field(default=0, kw_only=True)

    @property
    def active(self) -> bool:
        """Whether it waits, runs or is ending."""
        return self.state in ACTIVE


#: Slurm's words for jobs that have not ended (squeue's manual, JOB STATE CODES).
ACTIVE = frozenset(
    ["PENDING", "CONFIGURING", "RUNNING", "RESIZING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"]
    + ["COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"]
)


class Slurm:
    """The Slurm that these environment variables reach (``PATH``, ``SLURM_CONF``)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        # What a user or a surrounding job has set would override the script, and leak into its job.
        kept = ("SLURM_CONF", "SLURM_CLUSTERS")
        ours = ("SBATCH_", "SLURM_", "SLURMD_", "SRUN_", "SALLOC_", "SQUEUE_", "SCANCEL_", "SACCT_")
        self._env = {k: v for k, v in env.items() if k in kept or not k.startswith(ours)}
        self._env["LC_ALL"] = "C.UTF-8"

    def submit(
        self, script: str, folder: Path, options: Sequence[str] = (), holding: Sequence[int] = ()
    ) -> str:
        """The number of a new job that runs ``folder / script``, which is also where its output goes.

        Files in ``holding`` stay open as long as sbatch lives, which may be longer than this process.
        Raises SpecError where Slurm refuses the job, SlurmFailed where it cannot be asked, NoAnswer where
        nobody knows whether there is a job.
        """
        try:
            answer = self._run(["sbatch", "--parsable", *options, script], folder, holding)
        except NoAnswer:
            raise NoAnswer(f"sbatch did not answer within {_LIMIT_S:.0f} s; {_PERHAPS}") from None
        if answer.returncode < 0:
            raise NoAnswer(f"sbatch was ended by signal {-answer.returncode}; {_PERHAPS}")
        if answer.returncode:
            raise self._refused(answer.stderr)
        return answer.stdout.strip().splitlines()[-1].partition(";")[0]

    def states(self, job_ids: Iterable[str]) -> dict[str, JobState]:
        """What is known of these jobs; those that Slurm has forgotten are left out."""
        wanted = list(dict.fromkeys(job_ids))
        if not wanted:
            return {}
        found = self._queued(wanted)
        missing = [job for job in wanted if job not in found]
        return found | self._accounted(missing) if missing else found

    def count_jobs(self, partition: str | None = None, qos: str | None = None) -> int:
        """Jobs of this user that wait or run."""
        where = [*(["-p", partition] if partition else []), *(["-q", qos] if qos else [])]
        answer = self._run(["squeue", "--me", "--noheader", "--format=%i", "--array", *where])
        if answer.returncode:
            raise _failed("squeue", answer.stderr)
        return len(answer.stdout.split())

    def jobs_in(self, folder: Path, *, ended: bool = True) -> set[str]:
        """Jobs of this user that were submitted in a folder, with those that ended and Slurm still knows."""
        states = ["--states=all"] if ended else []
        answer = self._run(["squeue", "--me", "--noheader", *states, "--format=%i|%Z"])
        if answer.returncode:
            raise _failed("squeue", answer.stderr)
        rows = (line.partition("|") for line in answer.stdout.splitlines())
        # Slurm knows folders without symbolic links; names are compared first, because links take time.
        named = ((job, Path(where)) for job, _, where in rows if Path(where).name == folder.name)
        return {job for job, where in named if where.resolve() == folder.resolve()}

    def cancel(self, job_id: str) -> None:
        """End a job; no error where it has ended."""
        self._checked(["scancel", job_id], "Invalid job id|already completing|already finished")

    def requeue(self, job_id: str) -> None:
        """End a job and put it back in the queue, where Slurm holds it for two minutes."""
        self._checked(["scontrol", "requeue", job_id])

    def partitions(self) -> list[str]:
        """Names, sorted; empty where Slurm does not say."""
        answer = self._run(["sinfo", "--noheader", "--format=%R"])
        return sorted(set(answer.stdout.split())) if answer.returncode == 0 else []

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
        rows = (line.split("|") for line in answer.stdout.splitlines())
        whole = (row for row in rows if len(row) == 6)
        return {row[0]: JobState(*row[:5], held_s=_elapsed(row[5])) for row in whole}

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
            if len(row) == 4 and row[1]
        }

    def _refused(self, stderr: str) -> SpecError | SlurmFailed:
        """What sbatch's complaint means for the user."""
        message = _last_line(stderr)
        if _ANSWER_LOST.search(stderr):
            return NoAnswer(f"Slurm does not answer: {message}; {_PERHAPS}")
        if _SITE_AT_FAULT.search(stderr):
            return SlurmFailed(f"Slurm does not answer: {message}; nothing was submitted, try again later")
        if too_many := _TOO_MANY.search(stderr):
            return SpecError([Violation("slurm", None, f"Slurm refuses it: {too_many[0]}", _LATER)])
        for words, key, fix in _REFUSALS:
            if re.search(words, message, re.IGNORECASE):
                names = self.partitions() if key == "slurm.partition" else []
                fix = f"use one of: {', '.join(names)}" if names else fix
                return SpecError([Violation(key, None, f"Slurm refuses it: {message}", fix)])
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
                        f"{command[0]} is not on the PATH, so there is no Slurm here",
                        "call this on a login node of the cluster, or `frontrunner train` to run here",
                    )
                ]
            ) from None
        except subprocess.TimeoutExpired:
            raise NoAnswer(f"{command[0]} did not answer within {_LIMIT_S:.0f} s; try again later") from None


def _elapsed(text: str) -> int:
    """Seconds of squeue's ``1-02:03:04``, ``2:03:04`` or ``3:04``; 0 where it says that it does not know."""
    days, _, clock = text.rpartition("-")
    try:
        hours, minutes, rest = [0, 0, *(int(part) for part in clock.split(":"))][-3:]
        return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + rest
    except ValueError:
        return 0


def _failed(program: str, stderr: str) -> SlurmFailed:
    return SlurmFailed(f"{program}: {_last_line(stderr)}; try again later, or ask the site")


def _last_line(stderr: str) -> str:
    """The complaint without the program's name; Slurm says the cause last, or names it error."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line] or lines or ["no reason given"]
    return re.sub(r"^\w+: (error: )?", "", told[-1])
