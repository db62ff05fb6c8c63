from __future__ import annotations

from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import read_resolved
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.endings import TrainingFailed
from support.specs import run_spec

SPEC = run_spec(devices=2)


def test_create(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b c"
    run_folder.create(folder, SPEC)
    assert read_resolved(folder / "run.yaml") == SPEC
    assert [path.name for path in folder.iterdir()] == ["run.yaml"]
    with pytest.raises(SpecError, match="run.yaml"):
        run_folder.create(folder, SPEC)


def test_a_folder_that_holds_other_things_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "job.sh").touch()
    run_folder.create(tmp_path, SPEC)


@pytest.mark.parametrize("name", ["run.yaml", "records.jsonl"])
def test_a_folder_in_use(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SpecError, match=f"already contains a run .{name}.*another folder"):
        run_folder.create(tmp_path, SPEC)


def test_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="is not a folder"):
        run_folder.create(tmp_path / "file", SPEC)


def test_two_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "check_unused", lambda path: None)  # both find it unused
    run_folder.create(tmp_path, SPEC)
    with pytest.raises(SpecError, match="already contains a run"):
        run_folder.create(tmp_path, run_spec(devices=1))
    assert read_resolved(tmp_path / "run.yaml") == SPEC


def test_dated_names_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260102-030405")
    names = []
    for _ in range(3):
        folder = run_folder.dated("gpt-22b three/level")
        folder.mkdir(parents=True)
        names.append(str(folder))
    assert names == [f"runs/gpt-22b-three-level-20260102-030405{end}" for end in ("", "-2", "-3")]


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "2", "MASTER_PORT": "29500"}, "runs/x-4711"),
        ({"PMIX_NAMESPACE": "prterun-n1-42@1", "SLURM_JOB_ID": "4711"}, "runs/x-prterun-n1-42-1"),
        ({"TORCHELASTIC_RUN_ID": "abc", "MASTER_PORT": "29500"}, "runs/x-abc"),
        ({"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500"}, "runs/x-29500"),
    ],
)
def test_the_name_of_a_job(env: dict[str, str], name: str) -> None:
    assert run_folder.of_job("x", env) == Path(name)


def test_a_job_without_a_name() -> None:
    with pytest.raises(SpecError, match="--run-dir"):
        run_folder.of_job("x", {"TORCHELASTIC_RUN_ID": "none"})


def test_wait_for(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="rank 0"):
        run_folder.wait_for(tmp_path, SPEC, 0.0, continues=False)
    run_folder.create(tmp_path, SPEC)
    run_folder.wait_for(tmp_path, SPEC, 0.0, continues=False)
    (tmp_path / "records.jsonl").touch()  # opened, nothing written
    run_folder.wait_for(tmp_path, SPEC, 0.0, continues=False)
    (tmp_path / "records.jsonl").write_text("{}\n")
    with pytest.raises(SpecError, match="already contains a run"):
        run_folder.wait_for(tmp_path, SPEC, 0.0, continues=False)
    run_folder.wait_for(tmp_path, SPEC, 0.0, continues=True)


def test_who_continues_waits_for_the_run_that_was_asked_for(tmp_path: Path) -> None:
    run_folder.create(tmp_path, SPEC)
    changed = run_spec(devices=2, training={"steps": 20})
    with pytest.raises(TrainingFailed, match="rank 0"):
        run_folder.wait_for(tmp_path, changed, 0.0, continues=True)
    run_folder.reopen(tmp_path, changed)
    run_folder.wait_for(tmp_path, changed, 0.0, continues=True)


def test_reopen_forgets_what_went_wrong(tmp_path: Path) -> None:
    run_folder.create(tmp_path, SPEC)
    for name in ("errors", "stacks", "logs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rank-0.txt").touch()
    run_folder.reopen(tmp_path, SPEC)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "run.yaml"]


@pytest.mark.parametrize("end", ["", "{", "[]", '{"kind": "step", "step": 10}'])
def test_a_run_that_did_not_come_to_its_end_can_go_on(tmp_path: Path, end: str) -> None:
    run_folder.create(tmp_path, SPEC)
    (tmp_path / "records.jsonl").write_text(f'{{"kind": "header"}}\n{end}')
    run_folder.reopen(tmp_path, SPEC)


def test_a_run_that_is_complete(tmp_path: Path) -> None:
    run_folder.create(tmp_path, SPEC)
    (tmp_path / "records.jsonl").write_text('{"kind": "header"}\n{"kind": "summary", "steps": 10}\n')
    with pytest.raises(SpecError, match=r"is complete after 10 steps; .*training.steps=20"):
        run_folder.reopen(tmp_path, SPEC)
    run_folder.reopen(tmp_path, run_spec(devices=2, training={"steps": 11}))


def test_a_folder_is_one_processs_own(tmp_path: Path) -> None:
    with (
        run_folder.opened(tmp_path, SPEC, continues=False),
        pytest.raises(SpecError, match="another process is running in this folder"),
        run_folder.opened(tmp_path, SPEC, continues=True),
    ):
        raise AssertionError
    with run_folder.opened(tmp_path, SPEC, continues=True):
        pass
