"""A real Slurm of four nodes on this machine, in a PID namespace of its own.

Its first process is started so that it dies with ours, and the kernel then kills everything inside: the
daemons, their steps and whatever those have started. munge has a key and a socket of its own, ports are
free ones, so that several of these do not meet.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from frontrunner.parallelism.rendezvous import free_port

NODES = ("node1", "node2", "node3", "node4")
DEVICES = 8
PROGRAMS = ("slurmctld", "slurmd", "munged", "unshare", "setpriv", "sbatch")
_START_LIMIT_S = 30.0
_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing() -> str | None:
    """Why there can be no Slurm here; None if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_SBIN) is None]
    if absent:
        return f"{', '.join(absent)} not installed (apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "several slurmd on one machine need root"


class SlurmCluster:
    """A context: inside, ``env`` reaches the cluster. ``folder`` must be short, for the paths of sockets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._open = ExitStack()

    def __enter__(self) -> SlurmCluster:
        self._configure()
        log = self._open.enter_context((self.folder / "daemons.log").open("w"))
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL"]
        command += ["--mount-proc", "bash", "-c", self._daemons()]
        env = {**self.env, "PATH": _SBIN}
        self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env)
        try:
            self._wait_until_idle()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._open.close()

    def run(self, *command: str) -> str:
        """Output of one of Slurm's commands, which must succeed."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, errors="replace", timeout=60
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What ``scontrol`` says of a job, as far as its values hold no blanks."""
        words = self.run("scontrol", "-o", "show", "job", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job_id: str, *states: str, limit_s: float = 60.0) -> dict[str, str]:
        """Wait until the job is in one of the states."""
        deadline = time.monotonic() + limit_s
        while (job := self.job(job_id))["JobState"] not in states:
            assert time.monotonic() < deadline, f"job {job_id} is {job['JobState']}, not {states}"
            time.sleep(0.2)
        return job

    def start_again(self, job_id: str) -> None:
        """Let a job that is requeued start before the two minutes are over for which Slurm holds it.

        They are there for what is left of its first start, which would make the second fail.
        """
        self.wait(job_id, "PENDING")
        deadline = time.monotonic() + 60
        while any(f"slurmstepd: [{job_id}." in name for name in _processes()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)  # credentials carry whole seconds: one of the second of the requeue counts as revoked
        self.run("scontrol", "update", f"jobid={job_id}", "StartTime=now")

    def log(self) -> str:
        """The end of what the daemons have written."""
        return "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("slurm*.log")))

    def end_all(self) -> None:
        """Cancel all jobs, and let every node work again."""
        self.run("scancel", "--user=root")
        deadline = time.monotonic() + 60
        while self.run("squeue", "-h").strip() or self._idle() != len(NODES):
            assert time.monotonic() < deadline, self.run("squeue") + self.run("sinfo", "-N")
            for node in self.run("sinfo", "-h", "-N", "-t", "down,drain", "-o", "%N").split():
                # Refused while it is still getting rid of a job.
                subprocess.run(
                    ["scontrol", "update", f"nodename={node}", "state=resume"],
                    env=self.env,
                    capture_output=True,
                )
            time.sleep(0.2)

    def _idle(self) -> int:
        """Nodes that could start a job now."""
        command = ["sinfo", "-h", "-p", "batch", "-t", "idle", "-o", "%D"]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, errors="replace", timeout=60
        )
        return int(done.stdout or 0)

    def _configure(self) -> None:
        for name in ("state", "munge"):
            (self.folder / name).mkdir()
        self.folder.chmod(0o755)  # munged wants its socket to be reachable for all
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge" / "key").chmod(0o600)
        for number in range(DEVICES):
            os.mknod(self.folder / f"gpu{number}", 0o20666, os.makedev(1, 3))
        devices = f"{self.folder}/gpu[0-{DEVICES - 1}]"
        (self.folder / "gres.conf").write_text(f"NodeName=node[1-4] Name=gpu File={devices}\n")
        ports = ",".join(str(free_port()) for _ in NODES)
        (self.folder / "slurm.conf").write_text(
            "\n".join(line.strip() for line in self._lines(ports).splitlines()) + "\n"
        )

    def _lines(self, ports: str) -> str:
        here = self.folder
        return f"""ClusterName=frontrunner
            SlurmctldHost=localhost
            SlurmctldPort={free_port()}
            SlurmUser=root
            AuthInfo=socket={here}/munge/socket
            CredType=cred/munge
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            SwitchType=switch/none
            MpiDefault=none
            SlurmctldPidFile={here}/slurmctld.pid
            SlurmctldLogFile={here}/slurmctld.log
            SlurmdSpoolDir={here}/spool.%n
            SlurmdPidFile={here}/slurmd.%n.pid
            SlurmdLogFile={here}/slurmd.%n.log
            StateSaveLocation={here}/state
            SlurmdParameters=config_overrides
            SelectType=select/cons_tres
            SelectTypeParameters=CR_Core
            GresTypes=gpu
            MinJobAge=3600
            JobRequeue=1
            EnforcePartLimits=ALL
            KillWait=5
            ReturnToService=0
            SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
            NodeName=node[1-4] NodeHostname=localhost Port=[{ports}] CPUs=8 RealMemory=6000 Gres=gpu:{DEVICES}
            PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP
            PartitionName=short Nodes=ALL MaxTime=10 State=UP"""

    def _daemons(self) -> str:
        munge = self.folder / "munge"
        options = [f"--{key}={munge / name}" for key, name in _MUNGE_FILES.items()]
        munged = shlex.join(["munged", "--foreground", *options])
        nodes = "\n".join(f"slurmd -D -N {node} &" for node in NODES)
        ready = f"while [ ! -S {shlex.quote(str(munge / 'socket'))} ]; do sleep 0.05; done"
        return f"{munged} &\n{ready}\nslurmctld -D -c &\n{nodes}\nwait"

    def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        while self._idle() != len(NODES):
            if time.monotonic() > deadline:
                raise AssertionError(f"Slurm did not start\n{self.log()}")
            time.sleep(0.1)


def _processes() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended while we looked
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


_MUNGE_FILES = {
    "key-file": "key",
    "socket": "socket",
    "pid-file": "pid",
    "log-file": "log",
    "seed-file": "seed",
}
