from __future__ import annotations

import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism import rendezvous
from frontrunner.parallelism.rendezvous import Rendezvous, first_host, free_port, from_environment

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "n0", "MASTER_PORT": "29500"}
STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_NODELIST": "frontier[00007-00009,00012]",
}
# As sbatch leaves them for the script itself, and salloc for its shell.
BATCH_SCRIPT = {"SLURM_JOB_ID": "4711", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "16"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "2"}


class _Node:
    def __init__(self, ranks: int) -> None:
        self._ranks = ranks

    def Get_rank(self) -> int:
        return 1

    def Get_size(self) -> int:
        return self._ranks

    def Free(self) -> None:
        pass


class _World:
    """Rank 2 of 4, of which ``on_node`` share its node; rank 0 broadcasts what it is given."""

    def __init__(self, on_node: int, rank: int = 2) -> None:
        self._on_node, self._rank = on_node, rank

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return 4

    def Split_type(self, kind: object) -> _Node:
        return _Node(self._on_node)

    def bcast(self, value: Any) -> Any:
        return value if self._rank == 0 else ("host0", 1234)


@pytest.fixture
def mpi(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(world: _World) -> None:
        module = types.ModuleType("mpi4py")
        module.MPI = types.SimpleNamespace(COMM_WORLD=world, COMM_TYPE_SHARED=0)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "mpi4py", module)

    return install


def message(env: dict[str, str]) -> str:
    with pytest.raises(SpecError) as caught:
        from_environment(env)
    return str(caught.value)


def test_alone() -> None:
    assert from_environment({"PATH": "/bin", "MASTER_ADDR": "n0", "MASTER_PORT": "29500"}) is None


def test_torchrun() -> None:
    assert from_environment(TORCHRUN) == Rendezvous(5, 8, 1, "n0", 29500, "RANK and WORLD_SIZE (torchrun)")


def test_torchrun_inside_a_slurm_step_and_mpi() -> None:
    found = from_environment(STEP | OPEN_MPI | TORCHRUN)
    assert found is not None and (found.rank, found.world_size) == (5, 8)


@pytest.mark.parametrize("name", TORCHRUN)
def test_partial_torchrun(name: str) -> None:
    env = {key: value for key, value in TORCHRUN.items() if key != name}
    assert name in message(env).split("but not")[1]


def test_slurm_step() -> None:
    found = from_environment(STEP)
    assert found is not None
    assert (found.rank, found.world_size, found.local_rank) == (3, 16, 3)
    assert found.master_addr == "frontier00007"
    assert 20000 <= found.master_port < 32000
    assert "Slurm" in found.source


def test_slurm_steps_of_one_job_get_ports_of_their_own() -> None:
    ports = {from_environment(STEP | {"SLURM_STEP_ID": str(step)}).master_port for step in range(8)}  # type: ignore[union-attr]
    assert len(ports) == 8
    assert from_environment(STEP) == from_environment(dict(STEP))


def test_slurm_step_smaller_than_its_job() -> None:
    found = from_environment(STEP | {"SLURM_STEP_NUM_TASKS": "4"})
    assert found is not None and found.world_size == 4


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("127.0.0.1", True),
        ("127.0.1.1", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("node1", False),
    ],
)
def test_an_address_of_one_machine(address: str, one: bool) -> None:
    assert Rendezvous(0, 2, 0, address, 29500, "test").on_one_machine is one


def test_a_slurm_step_on_one_node_meets_on_loopback() -> None:
    found = from_environment(STEP | {"SLURM_STEP_NUM_NODES": "1"})
    assert found is not None and found.master_addr == "127.0.0.1"
    found = from_environment(STEP | {"SLURM_STEP_NUM_NODES": "1", "MASTER_ADDR": "n7"})
    assert found is not None and found.master_addr == "n7"


def test_slurm_step_with_an_address_given() -> None:
    found = from_environment(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "3442"})
    assert found is not None and (found.master_addr, found.master_port) == ("10.0.0.1", 3442)


@pytest.mark.parametrize("step", [None, "", "4294967291", "4294967290", "4294967292", "-5"])
def test_slurm_batch_script_and_interactive_shell(step: str | None) -> None:
    assert from_environment(BATCH_SCRIPT | ({} if step is None else {"SLURM_STEP_ID": step})) is None


def test_srun_sets_pmi_variables_too() -> None:
    found = from_environment(STEP | {"PMI_RANK": "3", "PMI_SIZE": "16", "PMIX_RANK": "3"})
    assert found is not None and "Slurm" in found.source


@pytest.mark.parametrize("name", ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_partial_slurm_step(name: str) -> None:
    assert name in message({key: value for key, value in STEP.items() if key != name}).split("but not")[1]


@pytest.mark.parametrize("env", [{"WORLD_SIZE": "8"}, {"LOCAL_RANK": "0"}])
def test_a_rank_without_its_number(env: dict[str, str]) -> None:
    assert "RANK" in message(env).split("but not")[1]


def test_a_world_size_set_by_hand_must_agree() -> None:
    assert from_environment(STEP | {"WORLD_SIZE": "16"}) == from_environment(STEP)
    assert "16" in message(STEP | {"WORLD_SIZE": "8"})


@pytest.mark.parametrize("env", [{"RANK": "8"}, {"RANK": "-1"}, {"RANK": "one"}, {"MASTER_PORT": "x"}])
def test_numbers_that_cannot_be(env: dict[str, str]) -> None:
    assert message(TORCHRUN | env)


@pytest.mark.parametrize(
    "variables", [OPEN_MPI, {"PMI_RANK": "2"}, {"MPI_LOCALRANKID": "0"}, OPEN_MPI | STEP]
)
def test_mpi(mpi: Any, variables: dict[str, str]) -> None:
    """Also where mpirun reached this node through srun, whose step variables are those of a helper."""
    mpi(_World(on_node=2))
    found = from_environment(variables)
    assert found == Rendezvous(2, 4, 1, "host0", 1234, "the MPI launcher (mpi4py)")


@pytest.mark.parametrize(("on_node", "address"), [(4, "127.0.0.1"), (2, socket.gethostname())])
def test_mpi_rank_0_says_where_it_listens(mpi: Any, on_node: int, address: str) -> None:
    mpi(_World(on_node, rank=0))
    found = from_environment(OPEN_MPI)
    assert found is not None and found.master_addr == address and found.master_port > 1023


def test_mpi_with_an_address_given(mpi: Any) -> None:
    mpi(_World(on_node=2))
    found = from_environment(OPEN_MPI | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "3442"})
    assert found is not None and (found.master_addr, found.master_port) == ("10.0.0.1", 3442)


def test_mpi_launcher_without_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert "mpi4py" in message(OPEN_MPI)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("n[003-007,9],m1", "n003"),
        ("m1,n[003-007]", "m1"),
        ("rack[2-3]n[05,7]-ib,x", "rack2n05-ib"),
        ("nid[001234]", "nid001234"),
    ],
)
def test_first_host(nodelist: str, host: str) -> None:
    assert first_host(nodelist) == host


@pytest.mark.parametrize("nodelist", ["", "n[", "n[1-2", "]"])
def test_not_a_list_of_hosts(nodelist: str) -> None:
    with pytest.raises(SpecError, match="MASTER_ADDR"):
        first_host(nodelist)


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("10005\t60999\n", range(10000, 10005)),  # the kernel gives none of these to a connection
        ("1024\t65535\n", range(1024, 65536)),
        ("none", range(1024, 65536)),
    ],
)
def test_a_free_port_can_be_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, ports: range
) -> None:
    (tmp_path / "range").write_text(text)
    monkeypatch.setattr(rendezvous, "_PORT_RANGE", tmp_path / "range")
    port = free_port()
    assert port in ports
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))


def test_a_port_that_is_listened_on_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "range").write_text("10001 60999")  # which leaves one port
    monkeypatch.setattr(rendezvous, "_PORT_RANGE", tmp_path / "range")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 10000))
        listener.listen()
        assert free_port() > 10000
