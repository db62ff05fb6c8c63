"""Ranks of a real fork server that end in every way, without torch."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import faulty_ranks
import pytest

from frontrunner.configs.load import dump, read_resolved

pytestmark = pytest.mark.usefixtures("no_process_left")
PROGRAM = str(Path(faulty_ranks.__file__))


def start(run_dir: Path, function: str, *preload: str) -> subprocess.Popen[str]:
    command = [sys.executable, PROGRAM, "local", str(run_dir), function, *preload]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and stderr; the launcher's stdout must stay empty."""
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


def wait_until_running(run_dir: Path) -> None:
    deadline = time.monotonic() + 60
    while len(list(run_dir.glob("ready-*"))) < faulty_ranks.RANKS:
        assert time.monotonic() < deadline, "the ranks did not start"
        time.sleep(0.05)


def test_a_run_that_ends_well(run_dir: Path) -> None:
    assert finish(start(run_dir, "finish")) == (0, "")
    lines = (run_dir / "records.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["kind"] == "header"
    assert json.loads(lines[-1])["kind"] == "summary"
    for rank in range(faulty_ranks.RANKS):
        log = (run_dir / "logs" / f"rank-{rank}.log").read_text()
        assert log == f"noise of rank {rank} on stdout\nnoise of rank {rank} below Python\n"
    assert not (run_dir / "errors").exists()


def test_ranks_listen_on_loopback_whatever_is_set_for_jobs(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "hsn0")
    assert finish(start(run_dir, "tell_interfaces"))[0] == 0
    assert {file.read_text() for file in run_dir.glob("interfaces-*")} == {"lo lo"}


@pytest.mark.parametrize("function", ["raise_first", "raise_last", "raise_alone"])
def test_the_rank_at_fault_is_shown_once(run_dir: Path, function: str) -> None:
    code, err = finish(start(run_dir, function))
    assert code == 1
    assert "rank 1 of 3" in err and "the other 2" in err
    assert err.count("Traceback") == 1
    assert err.count("ValueError: the cause") == 1
    assert f"in {function}" in err
    assert "closed by peer" not in err


def test_a_lost_connection_is_shown_where_nothing_else_is_known(run_dir: Path) -> None:
    code, err = finish(start(run_dir, "time_out"))
    assert code == 1
    assert "rank 1 of 3" in err and "Timed out waiting" in err


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("exit_seven", "exit code 7"),
        ("exit_seven", "the last words"),
        ("kill_itself", "signal 9 (Killed), which the kernel sends when memory runs out"),
        ("crash", "signal 11 (Segmentation fault)"),
        ("crash", "in crash"),  # the stack
    ],
)
def test_a_rank_without_a_traceback(run_dir: Path, function: str, expected: str) -> None:
    code, err = finish(start(run_dir, function))
    assert code == 1
    assert "rank 1 of 3" in err
    assert expected in err


def test_a_request_that_the_ranks_find_wrong(run_dir: Path) -> None:
    code, err = finish(start(run_dir, "refuse"))
    assert code == 2
    assert err == "run.yaml:7 layout.tensor = 3: 3 must divide 4; use 1, 2 or 4\n"


@pytest.mark.parametrize(
    ("function", "number"),
    [
        ("hang", signal.SIGINT),
        ("hang", signal.SIGHUP),
        ("hang_stubbornly", signal.SIGINT),
    ],
)
def test_interrupted(run_dir: Path, function: str, number: signal.Signals) -> None:
    process = start(run_dir, function)
    wait_until_running(run_dir)
    process.send_signal(number)
    assert finish(process) == (130, "interrupted\n")
    assert not (run_dir / "errors").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_asked_to_stop(run_dir: Path, number: signal.Signals) -> None:
    process = start(run_dir, "stop_on_request")
    wait_until_running(run_dir)
    process.send_signal(number)
    assert finish(process) == (
        75,
        f"stopped on request; to continue: frontrunner train {shlex.quote(str(run_dir))}\n",
    )


def test_asked_twice_is_told_to_end(run_dir: Path) -> None:
    process = start(run_dir, "ignore_requests")
    wait_until_running(run_dir)
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (130, "interrupted\n")


def slow_module(folder: Path, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Loading torch takes seconds; the server notices nothing meanwhile."""
    lines = ["import pathlib, time", "pathlib.Path(__file__).with_name('loading').touch()"]
    (folder / "slow_module.py").write_text("\n".join([*lines, f"time.sleep({seconds})"]))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def wait_until_loading(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "loading").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_interrupted_while_modules_load(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_module(tmp_path, monkeypatch, 1000)
    process = start(run_dir, "finish", "slow_module")
    wait_until_loading(tmp_path)
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "interrupted\n")


def test_asked_to_stop_while_modules_load(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks, which are not there yet, hear of it."""
    slow_module(tmp_path, monkeypatch, 2)
    process = start(run_dir, "stop_on_request", *faulty_ranks.PRELOAD, "slow_module")
    wait_until_loading(tmp_path)
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[0] == 75


@pytest.mark.long_except("sleep*")
@pytest.mark.parametrize(
    ("function", "culprit", "no_stack"),
    [("sleep_in_training", "rank 1 of 3", ""), ("freeze_in_training", "rank", "none from 1: stopped")],
)
def test_a_rank_that_hangs(run_dir: Path, function: str, culprit: str, no_stack: str) -> None:
    pytest.importorskip("torch")
    spec = read_resolved(run_dir / "run.yaml")
    watched = spec.model_copy(update={"watch": spec.watch.model_copy(update={"hang_after_s": 2.0})})
    (run_dir / "run.yaml").write_text(dump(watched))
    code, err = finish(start(run_dir, function))
    assert code == 1
    assert culprit in err and "hung: nothing happened for" in err
    assert no_stack in err and str(run_dir / "stacks") in err
    assert "Traceback" not in err
    stacks = {path.name: path.read_text() for path in (run_dir / "stacks").iterdir()}
    assert set(stacks) == {"rank-0.txt", "rank-1.txt", "rank-2.txt"}
    assert all("in _run" in text for name, text in stacks.items() if text)
    assert ("fault" in stacks["rank-1.txt"]) is not bool(no_stack)


def test_the_ranks_end_with_a_killed_launcher(run_dir: Path) -> None:
    process = start(run_dir, "hang")
    wait_until_running(run_dir)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # and no_process_left


def test_the_server_is_killed(run_dir: Path) -> None:
    process = start(run_dir, "hang")
    wait_until_running(run_dir)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    code, err = finish(process)
    assert code == 1
    assert "the process that starts the ranks was killed by signal 9" in err


def test_a_module_that_does_not_load(run_dir: Path) -> None:
    code, err = finish(start(run_dir, "finish", "no_such_module"))
    assert code == 1
    assert "ModuleNotFoundError: No module named 'no_such_module'" in err


def test_files_in_the_current_folder_are_not_imported(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('a file of the user')")
    monkeypatch.chdir(tmp_path)
    assert finish(start(run_dir, "finish")) == (0, "")


def test_a_request_that_comes_again_at_the_end_is_ignored(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has stopped its ranks, and its process has yet to end."""
    monkeypatch.setenv("LINGERS_S", "1")
    process = start(run_dir, "stop_on_request")
    wait_until_running(run_dir)
    process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not (run_dir / "lingers").exists():
        assert time.monotonic() < deadline, "the launcher did not stop"
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[0] == 75
