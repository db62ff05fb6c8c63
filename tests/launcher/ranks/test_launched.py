"""Processes that are ranks of a launcher, which is played by the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faulty_ranks
import pytest

pytestmark = pytest.mark.usefixtures("no_process_left")
Result = tuple[int, str, str]


@pytest.fixture
def launch(tmp_path: Path, run_file: Path) -> Callable[..., list[Result]]:
    """Start ranks as torchrun does; exit code, stdout and stderr of each."""

    def launch(
        function: str,
        ranks: int = faulty_ranks.RANKS,
        folder: str = "new",
        signal_number: signal.Signals | None = None,
    ) -> list[Result]:
        command = [
            sys.executable,
            str(Path(faulty_ranks.__file__)),
            "launched",
            str(tmp_path / folder),
            function,
        ]
        processes = []
        for rank in range(ranks):
            place = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_PORT": 1}
            env = os.environ | {key: str(value) for key, value in place.items()}
            env |= {"MASTER_ADDR": "localhost", "RUN_FILE": str(run_file)}
            pipe = subprocess.PIPE
            processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env))
        if signal_number is not None:
            deadline = time.monotonic() + 60
            while len(list((tmp_path / folder).glob("ready-*"))) < ranks:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for process in processes:
                process.send_signal(signal_number)
        outputs = [process.communicate(timeout=60) for process in processes]
        return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]

    return launch


@pytest.mark.usefixtures("old_torch")
def test_ranks_with_a_torch_that_is_too_old(launch: Callable[..., list[Result]]) -> None:
    results = launch("finish")
    assert {code for code, _, _ in results} == {2}
    (line,) = "".join(err for _, _, err in results).splitlines()
    assert line.startswith('torch = "2.9.1": frontrunner needs 2.10 or newer; ')


def test_rank_0_makes_the_folder_and_speaks(launch: Callable[..., list[Result]], tmp_path: Path) -> None:
    first, *others = launch("finish")
    assert others == [(0, "", "")] * 2
    code, out, err = first
    assert (code, err) == (0, "")
    assert "3 ranks of RANK and WORLD_SIZE (torchrun)" in out
    assert "step  3/10  loss 4.7000" in out
    assert "noise" not in out
    assert "5.5000 -> 3.5000 (unigram model: 4.2500)" in out
    assert (tmp_path / "new" / "run.yaml").exists()
    assert "noise of rank 2 below Python" in (tmp_path / "new" / "logs" / "rank-2.log").read_text()


def test_ranks_of_one_machine_listen_on_loopback(
    launch: Callable[..., list[Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "hsn0,hsn1")
    assert [code for code, _, _ in launch("tell_interfaces")] == [0, 0, 0]
    assert {file.read_text() for file in (tmp_path / "new").glob("interfaces-*")} == {"lo lo"}


@pytest.mark.parametrize("function", ["raise_first", "raise_last"])
def test_one_rank_explains_a_failure(launch: Callable[..., list[Result]], function: str) -> None:
    results = launch(function)
    assert [code for code, _, _ in results] == [1, 1, 1]
    assert "rank 1 of 3" in results[1][2] and results[1][2].count("ValueError: the cause") == 1
    assert results[0][2] == results[2][2] == ""


def test_asked_to_stop(launch: Callable[..., list[Result]], tmp_path: Path) -> None:
    results = launch("stop_on_request", signal_number=signal.SIGUSR1)
    assert [code for code, _, _ in results] == [75, 75, 75]
    assert results[0][2] == f"stopped on request; to continue: frontrunner train {tmp_path / 'new'}\n"
    assert results[1][2] == results[2][2] == ""


def test_one_rank_explains_a_wrong_request(launch: Callable[..., list[Result]]) -> None:
    results = launch("refuse")
    assert [code for code, _, _ in results] == [2, 2, 2]
    assert sorted(err for _, _, err in results) == [
        "",
        "",
        "run.yaml:7 layout.tensor = 3: 3 must divide 4; use 1, 2 or 4\n",
    ]


def test_another_number_of_ranks_than_the_layouts(
    launch: Callable[..., list[Result]], run_file: Path, tmp_path: Path
) -> None:
    first, other = launch("finish", ranks=2)
    assert first[0] == other[0] == 2
    assert "3 ranks, but 2 are running (RANK and WORLD_SIZE (torchrun))" in first[2]
    assert f"{run_file}:" in first[2]
    assert other[2] == ""
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use(launch: Callable[..., list[Result]], run_dir: Path) -> None:
    (run_dir / "records.jsonl").write_text('{"kind": "header"}\n')
    results = launch("finish", folder=run_dir.name)
    assert [code for code, _, _ in results] == [2, 2, 2]
    assert "already contains a run" in results[0][2]
    assert results[1][2] == results[2][2] == ""
