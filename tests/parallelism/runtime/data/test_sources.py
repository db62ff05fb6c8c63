"""Which files are taken, in which order, and how they become documents."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.runtime.data import sources
from frontrunner.parallelism.runtime.data.folders import find_files
from frontrunner.parallelism.runtime.data.sources import Documents


def texts(*paths: Path) -> list[str]:
    return list(Documents(paths, "text"))


def test_a_folder_gives_its_text_files_sorted_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.py", "a/y.md.gz", "c.JSONL", "a.png", ".git/x.txt", "a/.hidden.txt", "d.rst"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_files([str(tmp_path)]).files]
    assert found == ["a/y.md.gz", "a/z.py", "b.txt", "c.JSONL", "d.rst"]
    only = find_files([str(tmp_path)], suffixes=[".png"]).files
    assert [path.name for path in only] == ["a.png"]


def test_inputs_keep_their_order_and_a_file_any_name(tmp_path: Path) -> None:
    for name in ("z.dat", "a.txt"):
        (tmp_path / name).touch()
    found = find_files([str(tmp_path / "z.dat"), str(tmp_path)]).files
    assert [path.name for path in found] == ["z.dat", "a.txt"]


def test_the_standard_library_comes_without_tests_and_packages() -> None:
    found = find_files(["python-stdlib"]).files
    names = {path.name for path in found}
    assert {"this.py", "argparse.py", "dataclasses.py"} <= names
    assert not any({"test", "site-packages"} & set(path.parts) for path in found)
    assert 5e6 < sum(path.stat().st_size for path in found) < 30e6


def test_a_path_called_python_stdlib_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("python-stdlib").mkdir()
    Path("python-stdlib/a.txt").touch()
    assert find_files(["python-stdlib"]).files == [Path("python-stdlib/a.txt")]


def test_a_device_is_no_file() -> None:
    with pytest.raises(SpecError, match="neither a file nor a folder"):
        find_files(["/dev/null"])


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    plain, lines = tmp_path / "a.txt.gz", tmp_path / "b.jsonl.gz"
    plain.write_bytes(gzip.compress("é\n".encode()))
    lines.write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}'))
    assert texts(plain, lines) == ["é\n", "one", "two"]


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    fine, broken, lines = tmp_path / "fine.txt", tmp_path / "broken.txt", tmp_path / "lines.jsonl"
    fine.write_text("\ufeffa \ufffd of its own")
    broken.write_bytes(b"caf\xe9 \xff!")
    lines.write_bytes(b'{"text": "lone \\ud800 half"}')
    documents = Documents([fine, broken, lines], "text")
    assert list(documents) == ["a \ufffd of its own", "caf\ufffd \ufffd!", "lone \ufffd half"]
    assert documents.counts.undecodable_bytes == 3
    assert documents.counts.first_undecodable == broken


def test_line_ends_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\rthree\n")
    assert texts(path) == ["one\r\ntwo\rthree\n"]


def test_a_long_text_is_cut_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_PART_CHARACTERS", 10)
    path = tmp_path / "a.txt"
    whole = "".join(f"line {n} é\n" for n in range(20)) + "x" * 35
    path.write_text(whole)
    parts = texts(path)
    assert "".join(parts) == whole
    assert all(part.endswith("\n") for part in parts[:-3])
    assert max(map(len, parts)) <= 20


def test_empty_documents_are_dropped_and_counted(tmp_path: Path) -> None:
    empty, lines = tmp_path / "a.txt", tmp_path / "b.jsonl"
    empty.touch()
    lines.write_text('{"text": ""}\n\n{"text": "x"}\n')
    documents = Documents([empty, lines], "text")
    for _ in range(2):
        assert list(documents) == ["x"]
        assert documents.counts.empty_documents == 2
        assert documents.bytes_read == documents.total_bytes


def test_the_key_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"body": "x"}')
    assert list(Documents([path], "body")) == ["x"]


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")
    documents = Documents([path], "text")
    path.unlink()
    with pytest.raises(SpecError, match="a.txt.*cannot be read"):
        list(documents)
    with pytest.raises(SpecError, match="a.txt.*cannot be read"):
        Documents([path], "text")
