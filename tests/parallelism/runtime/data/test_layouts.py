"""Folders as public corpora lay them out, imitated small: all documents, or what was passed over, by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.runtime.data import records
from frontrunner.parallelism.runtime.data.folders import find_files
from frontrunner.parallelism.runtime.data.prepare import Prepared, prepare
from frontrunner.parallelism.runtime.data.sources import Documents

PARQUET = b"PAR1\x15\x04\x15\x10" + bytes(40) + b"PAR1"


def lines(start: int, count: int = 5, key: str = "text") -> bytes:
    return "".join(
        json.dumps({"id": n, key: f"document {n}", "meta": {"source": "cc"}}) + "\n"
        for n in range(start, start + count)
    ).encode()


def zstd(data: bytes) -> bytes:
    packed = pytest.importorskip("zstandard").ZstdCompressor().compress(data)
    assert isinstance(packed, bytes)
    return packed


def lay_out(folder: Path, content: dict[str, bytes]) -> str:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def prepared(tmp_path: Path, content: dict[str, bytes]) -> Prepared:
    folder = lay_out(tmp_path / "in", content)
    return prepare([folder], str(tmp_path / "out"), tokenizer="byte")


def test_dolma_and_c4(tmp_path: Path) -> None:
    """Shards .json.gz beside a README."""
    content = {
        "README.md": b"# Dolma\n",
        "en/c4-train.00000-of-01024.json.gz": gzip.compress(lines(0)),
        "en/c4-train.00001-of-01024.json.gz": gzip.compress(lines(5)),
        ".gitattributes": b"*.gz filter=lfs\n",
    }
    result = prepared(tmp_path, content)
    assert result.info.documents == 10
    assert result.warnings == [
        f"{tmp_path}/in: 2 files read, passed over: 1 README or licence (README.md), "
        "1 hidden (.gitattributes)"
    ]


def test_the_pile_and_redpajama(tmp_path: Path) -> None:
    """Shards .jsonl.zst (The Pile, SlimPajama) and .jsonl (RedPajama), in folders of their own."""
    content = {
        "pile/train/00.jsonl.zst": zstd(lines(0)),
        "pile/val.jsonl.zst": zstd(lines(5)),
        "redpajama/arxiv_0.jsonl": lines(10),
    }
    result = prepared(tmp_path, content)
    assert result.info.documents == 15
    assert result.warnings == []


def test_code_has_its_text_under_content(tmp_path: Path) -> None:
    """The Stack and StarCoder's data say ``content``."""
    result = prepared(tmp_path, {"a.jsonl": lines(0, key="content"), "b.jsonl": lines(5)})
    assert result.info.documents == 10
    assert result.warnings == ["records without 'text', whose 'content' was taken: 5"]


def test_fineweb(tmp_path: Path) -> None:
    """Parquet beside a README is no corpus of the README alone."""
    content = {
        "README.md": b"# FineWeb\n",
        "data/000_00000.parquet": PARQUET,
        "data/000_00001.parquet": PARQUET,
    }
    with pytest.raises(SpecError) as refused:
        prepared(tmp_path, content)
    assert (
        "holds no data that can be read, only README.md; "
        "passed over: 2 .parquet (data/000_00000.parquet ...); write their text as JSON lines first"
    ) in str(refused.value)


def test_a_saved_dataset_and_archives(tmp_path: Path) -> None:
    saved = {"dataset_info.json": b"{}", "state.json": b"{}", "data-0.arrow": b"\xff\xff\xff\xff"}
    with pytest.raises(SpecError, match=r"passed over: 2 settings or description .*, 1 \.arrow"):
        prepared(tmp_path / "arrow", saved)
    with pytest.raises(SpecError, match=r"passed over: 1 \.tar\.gz \(a\.tar\.gz\).*; unpack them first"):
        prepared(tmp_path / "tar", {"a.tar.gz": b"\x1f\x8b"})
    with pytest.raises(SpecError, match="it is empty"):
        (tmp_path / "empty").mkdir()
        find_files([str(tmp_path / "empty")])


def test_more_passed_over_than_read_is_said(tmp_path: Path) -> None:
    content = {"a.txt": b"text", "b.png": b"", "c.png": b"", "link": b""}
    folder = Path(lay_out(tmp_path / "in", content))
    (folder / "away").symlink_to(tmp_path)
    (folder / "gone.txt").symlink_to(tmp_path / "nothing")
    assert find_files([str(folder)]).notes == [
        f"{folder}: more is passed over than read: 1 file read, passed over: 2 .png (b.png ...), "
        "1 links to folders (away), 1 links to nothing (gone.txt), 1 without an ending (link)"
    ]


def test_a_readme_is_a_document_where_there_is_only_text(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "in", {"README.md": b"# Notes\n", "b.txt": b"text", "c.md": b"text"})
    assert len(find_files([folder]).files) == 3


def test_a_file_that_is_read_twice_is_said(tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "in", {"a.jsonl": lines(0), "a.jsonl.gz": gzip.compress(lines(0))})
    (note,) = find_files([folder]).notes
    assert note == "1 file is read more than once: named twice, or in two forms (the first: a.jsonl)"


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read_in_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None
) -> None:
    path = tmp_path / "a.json"
    texts = [f"document {n} ] , é" for n in range(40)]
    values: list[object] = [{"text": text} for text in texts]
    path.write_text("\n " + json.dumps([*values, 12345, "text", {"id": 1}], indent=indent))
    for chunk in (1, 7, 2**18):
        monkeypatch.setattr(records, "_CHUNK", chunk)
        documents = Documents([path])
        assert list(documents) == texts
        assert documents.counts.records_without_text == 3
    whole = path.read_text()
    for damaged in (whole[:-2], whole.replace("},", "}", 1), whole + "{}", whole.replace("12345", "12x")):
        path.write_text(damaged)
        with pytest.raises(SpecError, match="is not one whole JSON array"):
            list(Documents([path]))


def test_names_that_say_nothing_or_something_else(tmp_path: Path) -> None:
    content = {
        "part-0": lines(0),
        "a.txt": lines(5),
        "b.xml": b"<a>text</a>",
        "c": json.dumps([{"text": "x"}]).encode(),
    }
    lay_out(tmp_path, content)
    documents = Documents([tmp_path / name for name in content])
    assert list(documents) == [f"document {n}" for n in range(5)] + [lines(5).decode(), "<a>text</a>", "x"]
    assert documents.notes == [
        f"{tmp_path}/a.txt looks like JSON lines, but is read as text for its name (.txt)",
        f"{tmp_path}/b.xml is read as plain text, with its markup",
    ]
