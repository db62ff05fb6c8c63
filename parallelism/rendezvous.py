"""How this process finds the other ranks: from the variables of its launcher.

Sources are read in this order, so that the more explicit one wins:

1. ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``MASTER_ADDR``, ``MASTER_PORT`` (torchrun, or set by hand);
2. mpi4py, if an MPI launcher's own variables are set (``mpirun``, ``mpiexec``);
3. the variables of a Slurm *step* (``srun``). Batch scripts and ``salloc`` shells also have
   ``SLURM_PROCID=0`` but are not ranks; the step number tells them apart.

Both ``srun`` and MPI launchers set ``PMI_RANK`` and ``PMIX_RANK``. Inside a step they do not count as a sign
of an MPI launcher: Slurm's own variables say the same without initialising MPI. Launchers that ``mpirun``
starts *through* ``srun`` set a variable of their own, which does count.
"""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from frontrunner.configs.errors import SpecError, Violation

_MPI_LAUNCHERS = ("OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_RANK", "PALS_RANKID")
_MPI_OR_SRUN = ("PMI_RANK", "PMIX_RANK")
# Slurm numbers the batch, extern and interactive steps from here up (SLURM_MAX_NORMAL_STEP_ID).
_FIRST_SPECIAL_STEP = 0xFFFFFFF0
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # the kernel picks ports from this range
_FIRST_PORT = 10000  # ports below are well-known ports of services
#: Where gloo and NCCL (RCCL) listen if all ranks are on this machine: their choice is an interface that other
#: machines reach, and neither asks who connects.
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Rendezvous:
    """One rank's place among the ranks, and the address at which rank 0 listens.

    ``source`` names, for messages, where the numbers came from. ``served``: the launcher listens there.
    """

    rank: int
    world_size: int
    local_rank: int
    master_addr: str
    master_port: int
    source: str
    served: bool = False

    @property
    def on_one_machine(self) -> bool:
        """Whether the address shows that all ranks are on this machine.

        A host name does not: its own host may resolve it to a loopback address, where others do not get.
        """
        if self.master_addr == "localhost":
            return True
        try:
            return ip_address(self.master_addr).is_loopback
        except ValueError:
            return False


def from_environment(env: Mapping[str, str]) -> Rendezvous | None:
    """The rendezvous that the launcher's variables describe; None if no launcher started this process.

    Raises SpecError if the variables are incomplete or contradictory. May import mpi4py, which initialises
    MPI.
    """
    if "RANK" in env:
        return _checked(_from_torchrun(env))
    if any(name in env for name in _MPI_LAUNCHERS):
        found = _from_mpi(env)
    elif _in_slurm_step(env):
        found = _from_slurm(env)
    elif any(name in env for name in _MPI_OR_SRUN):
        found = _from_mpi(env)
    else:
        leftover = [name for name in ("WORLD_SIZE", "LOCAL_RANK") if name in env]
        if leftover:
            raise _missing(["RANK"], f"{' and '.join(leftover)} is set")
        return None
    _agree(env, "WORLD_SIZE", found.world_size, found.source)
    return _checked(found)


def free_port() -> int:
    """A TCP port that is free now and outside the range from which the kernel assigns ports.

    The port is bound a moment later. By then a port from the kernel's range may belong to a connection of
    another process: starting ranks open many.
    """
    for port in [*_asked_for_only(), 0]:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found: int = probe.getsockname()[1]
            return found
    raise OSError("no TCP port is free")


def _asked_for_only() -> list[int]:
    """Some ports outside the kernel's range; empty if that range leaves too few."""
    try:
        first = int(_PORT_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        return []
    ports = range(_FIRST_PORT, first)
    return random.SystemRandom().sample(ports, min(len(ports), 100))


def _from_torchrun(env: Mapping[str, str]) -> Rendezvous:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in names if name not in env]
    if missing:
        raise _missing(missing, f"RANK={env['RANK']} is set")
    return Rendezvous(
        rank=_integer(env, "RANK"),
        world_size=_integer(env, "WORLD_SIZE"),
        local_rank=_integer(env, "LOCAL_RANK"),
        master_addr=env["MASTER_ADDR"],
        master_port=_integer(env, "MASTER_PORT"),
        source="RANK and WORLD_SIZE (torchrun)",
        served=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _from_mpi(env: Mapping[str, str]) -> Rendezvous:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        raise SpecError(
            [
                Violation(
                    "",
                    None,
                    f"an MPI launcher started this process, but mpi4py does not load ({error})",
                    "pip install mpi4py for this MPI, or set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and "
                    "MASTER_PORT for each rank",
                )
            ]
        ) from None
    world = MPI.COMM_WORLD
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    local_rank, local_size = node.Get_rank(), node.Get_size()
    node.Free()
    # A host name may resolve to a loopback address that only its own host can reach; fine on one node.
    host = "127.0.0.1" if local_size == world.Get_size() else socket.gethostname()
    address, port = world.bcast((host, free_port()) if world.Get_rank() == 0 else None)
    return Rendezvous(
        rank=world.Get_rank(),
        world_size=world.Get_size(),
        local_rank=local_rank,
        master_addr=env.get("MASTER_ADDR", address),
        master_port=_integer(env, "MASTER_PORT") if "MASTER_PORT" in env else port,
        source="the MPI launcher (mpi4py)",
    )


def _in_slurm_step(env: Mapping[str, str]) -> bool:
    step = env.get("SLURM_STEP_ID", "")
    return step.isdigit() and int(step) < _FIRST_SPECIAL_STEP


def _from_slurm(env: Mapping[str, str]) -> Rendezvous:
    size_name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    missing = [name for name in ("SLURM_PROCID", size_name, "SLURM_LOCALID") if name not in env]
    if "MASTER_ADDR" not in env and "SLURM_STEP_NODELIST" not in env:
        missing.append("SLURM_STEP_NODELIST (or MASTER_ADDR)")
    if "MASTER_PORT" not in env and "SLURM_JOB_ID" not in env:
        missing.append("SLURM_JOB_ID (or MASTER_PORT)")
    if missing:
        raise _missing(missing, f"SLURM_STEP_ID={env['SLURM_STEP_ID']} is set")
    if "MASTER_PORT" in env:
        port = _integer(env, "MASTER_PORT")
    else:
        # Equal on every rank without communication, different for steps of one job, below the kernel's range.
        port = 20000 + (_integer(env, "SLURM_JOB_ID") * 31 + _integer(env, "SLURM_STEP_ID")) % 12000
    if "MASTER_ADDR" in env:
        address = env["MASTER_ADDR"]
    else:
        alone = env.get("SLURM_STEP_NUM_NODES") == "1"
        address = "127.0.0.1" if alone else first_host(env["SLURM_STEP_NODELIST"])
    return Rendezvous(
        rank=_integer(env, "SLURM_PROCID"),
        world_size=_integer(env, size_name),
        local_rank=_integer(env, "SLURM_LOCALID"),
        master_addr=address,
        master_port=port,
        source=f"Slurm's step variables (SLURM_PROCID, {size_name})",
    )


def first_host(nodelist: str) -> str:
    """The first host of a Slurm node list: ``n[003-007,9],m1`` gives ``n003``."""
    host = ""
    rest = nodelist.strip()
    while match := re.match(r"([^,\[\]]*)\[([^\],-]+)[^\]]*\]", rest):
        host += match[1] + match[2]
        rest = rest[match.end() :]
    host += rest.split(",", 1)[0]
    if not host or "[" in host or "]" in host:
        raise SpecError(
            [
                Violation(
                    "SLURM_STEP_NODELIST",
                    nodelist,
                    "is not a list of hosts",
                    "set MASTER_ADDR to rank 0's host",
                )
            ]
        )
    return host


def _integer(env: Mapping[str, str], name: str) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise SpecError(
            [Violation(name, env[name], "must be a whole number", f"correct or unset {name}")]
        ) from None


def _missing(names: list[str], because: str) -> SpecError:
    return SpecError(
        [
            Violation(
                "",
                None,
                f"the environment describes a rank incompletely: {because}, but not {', '.join(names)}",
                "set all of them (torchrun, mpirun and srun do), or unset them to start the ranks on this "
                "machine",
            )
        ]
    )


def _agree(env: Mapping[str, str], name: str, found: int, source: str) -> None:
    if name in env and _integer(env, name) != found:
        raise SpecError(
            [Violation(name, env[name], f"but {source} says {found}", f"unset {name} or make them agree")]
        )


def _checked(found: Rendezvous) -> Rendezvous:
    if not 0 <= found.rank < found.world_size or found.local_rank < 0:
        raise SpecError(
            [
                Violation(
                    "",
                    None,
                    f"rank {found.rank} (local rank {found.local_rank}) is not among the {found.world_size} "
                    f"ranks of {found.source}",
                    "ranks count from 0 to WORLD_SIZE - 1",
                )
            ]
        )
    return found
