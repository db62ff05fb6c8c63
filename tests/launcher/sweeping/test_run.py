"""Sweeps on this machine, training played: outcomes, budgets, and a controller that is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("optuna")

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.launcher import cli
from frontrunner.launcher.sweeping.backends import Attempt, Local
from frontrunner.launcher.sweeping.controller import Controller, opened
from frontrunner.launcher.sweeping.outcome import CRASH, NODE_FAILURE, TIME_OUT, Ended, failure, last_words
from frontrunner.launcher.sweeping.samplers import Strategy, strategy
from frontrunner.launcher.sweeping.space import Point, points
from frontrunner.launcher.sweeping.store import EARLY_STOP, FILE, OUT_OF_MEMORY, Store, Trial, best
from frontrunner.slurm.errors import SlurmFailed
from support import stand_in_train
from support.sweeps import SMALL, small_sweep


@pytest.fixture
def command(tmp_path: Path) -> str:
    """What is called instead of frontrunner."""
    program = tmp_path / "stand in"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{stand_in_train.__file__}" "$@"\n')
    program.chmod(0o755)
    return str(program)


def changed(sweep: SweepDocument, **values: Any) -> SweepDocument:
    return replace(sweep, spec=sweep.spec.model_copy(update=values))


def budget(sweep: SweepDocument, **values: Any) -> SweepDocument:
    return changed(sweep, budget=sweep.spec.budget.model_copy(update=values))


def everything(known: tuple[Point, ...], sweep: SweepDocument) -> Strategy:
    return strategy(sweep, known, "grid", planner=False)


def run(sweep: SweepDocument, folder: Path, command: str) -> list[Trial]:
    known = points(sweep)
    with opened(folder, sweep) as store:
        plan = everything(known, sweep)
        Controller(sweep, folder, known, plan, Local(command), store, lambda _: None, 0.01).run()
        return store.trials()


def starts(folder: Path) -> list[str]:
    file = folder / "starts.txt"
    return file.read_text().split() if file.exists() else []


def test_outcomes_are_told_apart(tmp_path: Path, command: str) -> None:
    sweep = changed(budget(small_sweep(tmp_path), trials=100), early_stop=0.0)
    trials = run(sweep, tmp_path / "folder", command)
    assert len(trials) == 24
    for trial in trials:
        tensor, micro = trial.values["layout.tensor"], trial.values["layout.micro_batch_size"]
        expected = OUT_OF_MEMORY if micro == 5 else CRASH if (tensor, micro) == (2, 4) else None
        assert trial.failure == expected
        assert (trial.objective is None) == (expected is not None)
        assert trial.node_hours > 0 or expected == OUT_OF_MEMORY
    leader = best(trials, sweep.spec.objective)
    assert leader is not None
    assert leader.values == {"layout.pipeline": 8, "layout.tensor": 1, "layout.micro_batch_size": 4}
    assert leader.objective == 481


def test_a_hopeless_trial_is_ended(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAUSE_S", "0.1")
    text = SMALL.replace("[1, 2, 4, 5]", "[4, 1]").replace("[2, 4, 8]", "[8]").replace("[1, 2]", "[1]")
    sweep = small_sweep(tmp_path, text)
    first, second = run(sweep, tmp_path / "folder", command)
    assert (first.state, second.state, second.failure) == ("complete", "stopped", EARLY_STOP)
    records = (tmp_path / "folder" / "trials" / "0001-1" / "records.jsonl").read_text()
    assert len(records.splitlines()) < 10


def test_a_trial_that_takes_too_long(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAUSE_S", "60")
    sweep = changed(budget(small_sweep(tmp_path), trials=1), trial_time="1s")
    (trial,) = run(sweep, tmp_path / "folder", command)
    assert trial.failure == TIME_OUT


def test_the_budget_ends_a_sweep(tmp_path: Path, command: str) -> None:
    assert len(run(budget(small_sweep(tmp_path), trials=3), tmp_path / "a", command)) == 3
    assert len(run(budget(small_sweep(tmp_path), node_hours=1e-6), tmp_path / "b", command)) == 1


def test_a_killed_controller_loses_nothing_and_repeats_nothing(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times at random, every second time once it has got as far as a trial; then what is there equals an
    undisturbed sweep."""
    sweep = changed(budget(small_sweep(tmp_path), trials=100), early_stop=0.0)
    undisturbed = run(sweep, tmp_path / "undisturbed", command)
    monkeypatch.setenv("PAUSE_S", "0.05")
    folder, moments = tmp_path / "folder", random.Random(7)
    for number in range(10):
        before = len(starts(folder))
        child = os.fork()
        if child == 0:
            try:
                run(sweep, folder, command)
            finally:
                os._exit(0)
        deadline = time.monotonic() + 60
        while number % 2 and len(starts(folder)) == before and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.02, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    between = len(starts(folder))
    trials = run(sweep, folder, command)
    assert 0 < between < len(trials), "the kills came while it ran"
    assert sorted(starts(folder)) == [f"{trial.number:04d}-1" for trial in trials]
    assert [(t.point, t.objective, t.failure) for t in trials] == [
        (t.point, t.objective, t.failure) for t in undisturbed
    ]


class Nodes:
    """A backend whose first node fails at once."""

    most: int | None = None

    def __init__(self) -> None:
        self.excluded: list[str | None] = []

    def start(self, attempt: Attempt) -> bool:
        return True

    def refresh(self, attempts: object) -> None:
        pass

    def ended(self, attempt: Attempt) -> Ended:
        self.excluded.append(attempt.spec.slurm.exclude)
        return Ended(None, "NODE_FAIL", f"node{len(self.excluded)}")

    def stop(self, attempt: Attempt) -> None:
        pass

    def used_s(self, attempt: Attempt) -> float:
        return 3600.0


def test_node_failures_are_tried_again_elsewhere(tmp_path: Path) -> None:
    sweep = budget(small_sweep(tmp_path), trials=1)
    known, nodes = points(sweep), Nodes()
    with opened(tmp_path / "folder", sweep) as store:
        plan = everything(known, sweep)
        Controller(sweep, tmp_path, known, plan, nodes, store, lambda _: None, 0.01).run()
        (trial,) = store.trials()
    assert nodes.excluded == [None, "node1", "node1,node2"]
    assert (trial.failure, trial.attempt) == (NODE_FAILURE, 3)
    assert trial.node_hours == 3 * known[trial.point].spec.nodes


@pytest.mark.parametrize(
    ("ended", "said", "expected"),
    [
        (Ended(0), "out of memory", None),
        (Ended(1), "torch.OutOfMemoryError: HIP out of memory", OUT_OF_MEMORY),
        (Ended(1), "slurmstepd: error: Detected 1 oom_kill event", OUT_OF_MEMORY),
        (Ended(1), "ValueError: no", CRASH),
        (Ended(2), "layout.tensor = 3: must divide", "rejection"),
        (Ended(75), "", TIME_OUT),
        (Ended(None, "TIMEOUT"), "", TIME_OUT),
        (Ended(None, "OUT_OF_MEMORY"), "", OUT_OF_MEMORY),
        (Ended(None, "NODE_FAIL"), "", NODE_FAILURE),
        (Ended(None, "FAILED"), "", CRASH),
        (Ended(), "", NODE_FAILURE),
    ],
)
def test_kinds_of_failure(tmp_path: Path, ended: Ended, said: str, expected: str | None) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "rank-0.log").write_text(said)
    assert failure(tmp_path / "run", ended) == expected


def test_one_controller_at_a_time(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    with (
        opened(tmp_path / "folder", sweep) as store,
        pytest.raises(SpecError, match="another `frontrunner sweep run` is using"),
        opened(tmp_path / "folder", sweep),
    ):
        pass
    assert isinstance(store, Store)


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    for folder in (tmp_path / "small.yaml", tmp_path / "small.yaml" / "deeper"):
        with pytest.raises(SpecError, match="a file has this name"), opened(folder, sweep):
            pass


def test_trials_of_a_journal_that_is_gone_are_not_adopted(tmp_path: Path, command: str) -> None:
    sweep = budget(small_sweep(tmp_path), trials=1)
    run(sweep, tmp_path / "folder", command)
    (tmp_path / "folder" / FILE).unlink()
    with pytest.raises(SpecError, match="folder/trials: belong to a missing journal"):
        run(sweep, tmp_path / "folder", command)


def test_a_crash_is_told_with_its_last_words(tmp_path: Path) -> None:
    run_dir = tmp_path / "0000-1"
    assert last_words(run_dir) == f"see {run_dir}"
    (tmp_path / "0000-1.log").write_text("Traceback\nValueError: no\n\nrun folder: elsewhere\n")
    assert last_words(run_dir) == "ValueError: no"


@pytest.mark.parametrize(
    ("commands", "said"),
    [
        (
            [],
            "squeue is not on the PATH: Slurm is not available here; run this on a login node, or",
        ),
        (
            ["squeue"],
            "its jobs require slurm.account; set slurm.account in the base",
        ),
    ],
)
def test_a_sweep_that_no_slurm_would_take_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[str], said: str
) -> None:
    small_sweep(tmp_path)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in commands:
        (bin_folder / name).write_text("#!/bin/sh\n")
        (bin_folder / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    arguments = ["sweep", "run", "small.yaml", "--on", "slurm"]
    result = CliRunner().invoke(cli.build(arguments), arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "sweeps").exists()


def test_a_space_without_a_legal_point_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_sweep(tmp_path, "base: gpt-22b-frontier\nspace: {layout.tensor: [3, 5]}\n")
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "run", "small.yaml", "--on", "local"]
    result = CliRunner().invoke(cli.build(arguments), arguments)
    assert result.exit_code == 2
    assert "small.yaml:2 space: contains no legal run; most common reason: layout.tensor" in result.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_sweep_that_finds_nothing_says_so(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    small_sweep(tmp_path, SMALL.replace("[1, 2, 4, 5]", "[5]") + "sampler: grid\n")  # where memory ends
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("frontrunner.launcher.sweeping.backends.executable", lambda: command)
    arguments = ["sweep", "run", "small.yaml", "--on", "local", "--json"]
    result = CliRunner().invoke(cli.build(arguments), arguments)
    assert result.exit_code == 1
    assert "no trial completed" in result.stderr
    assert json.loads(result.stdout)["best"] is None


def test_a_name_leads_to_no_other_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_sweep(tmp_path, "name: ../a/b\n" + SMALL)
    monkeypatch.chdir(tmp_path)
    arguments = ["sweep", "status", "small.yaml"]
    result = CliRunner().invoke(cli.build(arguments), arguments)
    assert result.exit_code == 2
    assert '"sweeps/a-b": contains no sweep yet' in result.stderr


class Silent(Nodes):
    """A scheduler that does not answer in some calls, counted from 0."""

    def __init__(self, *silent: int) -> None:
        super().__init__()
        self.silent, self.calls = silent, -1

    def start(self, attempt: Attempt) -> bool:
        self.calls += 1
        if self.calls in self.silent:
            raise SlurmFailed("slurm does not answer")
        return super().start(attempt)


def silent_sweep(folder: Path, backend: Silent) -> list[str]:
    """What is said of one trial on such a scheduler."""
    sweep = changed(budget(small_sweep(folder), trials=1), early_stop=0.0, retries=0)
    known, said = points(sweep), list[str]()
    with opened(folder / "folder", sweep) as store:
        plan = everything(known, sweep)
        Controller(sweep, folder, known, plan, backend, store, said.append, 0.01, 0.01).run()
    return said


def test_a_scheduler_that_does_not_answer_at_the_start_ends_the_sweep(tmp_path: Path) -> None:
    with pytest.raises(SlurmFailed, match="does not answer"):
        silent_sweep(tmp_path, Silent(0))


def test_later_it_is_asked_again(tmp_path: Path) -> None:
    said = silent_sweep(tmp_path, Silent(1, 2))
    again = [line for line in said if "next attempt" in line]
    assert again == ["slurm does not answer; next attempt in 0 s"] * 2
