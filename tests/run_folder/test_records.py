from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from frontrunner.run_folder.record_writer import RecordWriter, git_commit, header
from support.specs import run_spec


def lines(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]


def test_each_record_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with RecordWriter(tmp_path) as writer:
        writer.write("header", device="cpu")
        assert lines(tmp_path) == [{"kind": "header", "device": "cpu"}]
        writer.write("step", step=1, loss=2.5, bytes_sent={"node": 3})
        assert lines(tmp_path)[1] == {"kind": "step", "step": 1, "loss": 2.5, "bytes_sent": {"node": 3}}


def test_what_json_lacks_is_null(tmp_path: Path) -> None:
    seen: list[Any] = []
    with RecordWriter(tmp_path, seen.append) as writer:
        writer.write("step", loss=float("nan"), norms=[1.0, float("inf")], by={"a": float("-inf")})
    assert "NaN" not in (tmp_path / "records.jsonl").read_text()
    assert (
        lines(tmp_path) == seen == [{"kind": "step", "loss": None, "norms": [1.0, None], "by": {"a": None}}]
    )


def test_a_second_writer_appends(tmp_path: Path) -> None:
    for number in (1, 2):
        with RecordWriter(tmp_path) as writer:
            writer.write("step", step=number)
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_what_a_killed_writer_had_begun_is_cut_off(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    with RecordWriter(tmp_path) as writer:
        writer.write("step", step=2)
    assert [record["step"] for record in lines(tmp_path)] == [1, 2]


def test_header() -> None:
    spec = run_spec(devices=2)
    fields = json.loads(json.dumps(header(spec, {"data": 2}, "cpu", ["n1", "n2"], {"python": "3.14.1"})))
    assert fields["spec"] == spec.model_dump(mode="json")
    assert fields["layout"] == {"data": 2}
    assert fields["host_names"] == ["n1", "n2"]
    assert fields["device"] == "cpu"
    assert fields["versions"] == {"python": "3.14.1"}
    assert {"git_commit", "time"} <= set(fields)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "first")
    return folder


def test_git_commit_of_a_branch(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert git_commit(repository) == commit
    git(repository, "pack-refs", "--all")
    assert git_commit(repository) == commit


def test_git_commit_detached(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "--detach")
    assert git_commit(repository) == git(repository, "rev-parse", "HEAD")


def test_git_commit_of_a_linked_work_tree(repository: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", "--quiet", str(linked))
    git(linked, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert git_commit(linked) == git(linked, "rev-parse", "HEAD") != git_commit(repository)


def test_git_commit_elsewhere(tmp_path: Path, repository: Path) -> None:
    inside = repository / "site-packages"
    inside.mkdir()
    assert git_commit(tmp_path) is None
    assert git_commit(inside) is None
    git(tmp_path, "init", "--quiet")  # without a commit
    assert git_commit(tmp_path) is None
