"""The journal of a sweep: what is written survives, and what is not ours is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("optuna")

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from frontrunner.configs.errors import SpecError
from frontrunner.launcher.sweeping.space import points
from frontrunner.launcher.sweeping.store import FILE, OUT_OF_MEMORY, Store, best, repair
from support.sweeps import SMALL, small_sweep


def test_trials_are_there_for_the_next_controller(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    known = points(sweep)
    store = Store(tmp_path, sweep, create=True)
    first, second, third = (store.begin(known[number], 2.0) for number in (4, 0, 2))
    store.finish(first, 10.0, None, 0.5, -0.1)
    store.finish(second, None, OUT_OF_MEMORY, 0.1, -0.1)
    store.again(third, "node3")
    found = Store(tmp_path, sweep, create=False).trials()
    assert [trial.number for trial in found] == [0, 1, 2]
    assert [(trial.point, trial.state, trial.failure) for trial in found] == [
        (4, "complete", None),
        (0, "failed", OUT_OF_MEMORY),
        (2, "running", None),
    ]
    assert found[0].values == known[4].values
    assert (found[0].objective, found[0].node_hours, found[0].predicted) == (10.0, 0.5, 2.0)
    assert (found[2].attempt, found[2].avoid) == (2, "node3")
    assert best(found, sweep.spec.objective) == found[0]


def test_memory_failures_are_constraints(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    store = Store(tmp_path, sweep, create=True)
    for failure in (OUT_OF_MEMORY, None):
        trial = store.begin(points(sweep)[0 if failure else 1], None)
        store.finish(trial, None if failure else 1.0, failure, 0.0, -0.2)
    limits = [trial.constraints["memory"] for trial in store._study.get_trials()]
    assert limits[0] > 0 >= limits[1]


def test_a_record_cut_short_and_a_lock_that_was_left(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    store = Store(tmp_path, sweep, create=True)
    store.begin(points(sweep)[3], None)
    with (tmp_path / FILE).open("a") as journal:
        journal.write('{"op_code": 4, "stu')
    (tmp_path / f"{FILE}.lock").symlink_to(tmp_path / FILE)
    repair(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(FILE)] == [FILE]
    again = Store(tmp_path, sweep, create=True)
    again.begin(points(sweep)[5], None)
    assert [trial.point for trial in Store(tmp_path, sweep, create=False).trials()] == [3, 5]


@pytest.mark.parametrize("content", ["not JSON\n", '{"loss": 1}\n', "[1, 2]\n", "7\n"])
def test_a_file_that_is_no_journal(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(SpecError, match=r"journal.log.*is not a journal of trials"):
        Store(tmp_path, small_sweep(tmp_path), create=True)


@pytest.mark.parametrize("content", [b"hello", b"one line\nand half", bytes(range(128, 256))])
def test_mending_leaves_what_is_no_journal_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SpecError, match="is not a journal of trials"):
        repair(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


@pytest.mark.parametrize("content", ["", '{"op_', '{"op_code": 0, "study'])
def test_a_controller_that_was_killed_in_its_first_record(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    repair(tmp_path)
    with pytest.raises(SpecError, match="contains no sweep yet"):
        Store(tmp_path, small_sweep(tmp_path), create=False)
    assert Store(tmp_path, small_sweep(tmp_path), create=True).trials() == []


def test_a_study_of_another_program_is_not_written_to(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / FILE)))
    optuna.create_study(storage=storage, study_name="small", direction="maximize").add_trial(
        optuna.trial.create_trial(value=1.0)
    )
    before = (tmp_path / FILE).read_bytes()
    for create in (True, False):
        with pytest.raises(SpecError, match="contains trials that no sweep wrote"):
            Store(tmp_path, sweep, create=create)
    assert (tmp_path / FILE).read_bytes() == before


def test_the_journal_of_another_sweep(tmp_path: Path) -> None:
    Store(tmp_path, small_sweep(tmp_path), create=True)
    with pytest.raises(SpecError, match="contains trials of small, not of other"):
        Store(tmp_path, small_sweep(tmp_path, name="other"), create=True)
    changed = SMALL.replace("[1, 2]", "[1, 4]")
    with pytest.raises(SpecError, match="another base run, space, steps or objective"):
        Store(tmp_path, small_sweep(tmp_path, changed), create=True)
    Store(tmp_path, small_sweep(tmp_path, SMALL.replace("trials: 8", "trials: 9")), create=True)


def test_nothing_to_show_yet(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="contains no sweep yet"):
        Store(tmp_path, small_sweep(tmp_path), create=False)
    assert not (tmp_path / FILE).exists()
