"""Compressed input gives the documents of the plain file or is refused; other kinds are refused by name."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import pickle
import random
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.runtime.data.prepare import prepare
from frontrunner.parallelism.runtime.data.sources import Documents

Pack = Callable[[bytes], bytes]
TEXTS = [f"document {n}: " + "naïve — 日本語 🚀 " * (n % 7) for n in range(200)]
LINES = "".join(json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(TEXTS)).encode()


def zstd(data: bytes) -> bytes:
    try:
        module: Any = importlib.import_module("compression.zstd")
        options = {module.CompressionParameter.checksum_flag: 1}
        packed = module.compress(data, options=options)
    except ImportError:
        packed = pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)
    assert isinstance(packed, bytes)
    return packed


PACKS: dict[str, Pack] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def texts(path: Path, content: bytes | None = None) -> list[str]:
    if content is not None:
        path.write_bytes(content)
    return list(Documents([path]))


@pytest.mark.parametrize("pack", PACKS.values(), ids=PACKS.keys())
@pytest.mark.parametrize("name", ["a.jsonl{}", "a.json{}", "part-0", "a.jsonl", "a.jsonl.gz"])
def test_bytes_decide_and_not_names(tmp_path: Path, pack: Pack, name: str) -> None:
    suffix = next(suffix for suffix, known in PACKS.items() if known is pack)
    path = tmp_path / name.format(suffix)
    assert texts(path, pack(LINES)) == TEXTS


@pytest.mark.parametrize("suffix", PACKS)
def test_several_streams_in_a_file_are_all_read(tmp_path: Path, suffix: str) -> None:
    """As pigz, pbzip2, pixz and pzstd write them."""
    parts = [PACKS[suffix](LINES[start : start + 5000]) for start in range(0, len(LINES), 5000)]
    assert texts(tmp_path / f"a.jsonl{suffix}", b"".join(parts)) == TEXTS


@pytest.mark.parametrize("suffix", PACKS)
def test_no_damage_gives_other_documents(tmp_path: Path, suffix: str) -> None:
    """Flipped bits, lost tails and added bytes: refused, or the same 200 documents."""
    rng = random.Random(20)
    half = len(LINES) // 2
    packed = PACKS[suffix](LINES[:half]) + PACKS[suffix](LINES[half:])
    path, refused = tmp_path / f"a.jsonl{suffix}", 0
    for number in range(60):
        damaged = bytearray(packed)
        place = rng.randrange(len(packed))
        if number % 3 == 0:
            del damaged[place:]
        elif number % 3 == 1:
            damaged[place] ^= 1 << rng.randrange(8)
        else:
            damaged[place:place] = rng.randbytes(5)
        if bytes(damaged) == PACKS[suffix](LINES[:half]):
            continue
        try:
            found = texts(path, bytes(damaged))
        except SpecError as error:
            refused += "a.jsonl" in str(error)
        else:
            assert found == TEXTS
    assert refused > 50


def test_zstd_without_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SpecError, match=r"a\.jsonl.*compressed with zstd.*pip install zstandard"):
        texts(tmp_path / "a.jsonl", b"\x28\xb5\x2f\xfd\x04\x00" + bytes(30))


def test_a_file_compressed_twice_and_one_that_is_not(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="compressed twice, by xz inside gzip"):
        texts(tmp_path / "a.jsonl.gz", gzip.compress(lzma.compress(LINES)))
    (tmp_path / "b.jsonl.gz").write_bytes(LINES)
    documents = Documents([tmp_path / "b.jsonl.gz"])
    assert list(documents) == TEXTS
    assert documents.notes == [f"{tmp_path}/b.jsonl.gz is not compressed, and is read as it is"]


def tar(mode: str) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=mode) as archive:  # type: ignore[call-overload]
        entry = tarfile.TarInfo("a.jsonl")
        entry.size = len(LINES)
        archive.addfile(entry, io.BytesIO(LINES))
    return whole.getvalue()


def zipped(*names: str) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name in names:
            archive.writestr(name, LINES)
    return whole.getvalue()


def saved(save: Callable[[Any], object]) -> bytes:
    whole = io.BytesIO()
    save(whole)
    return whole.getvalue()


def sqlite(path: Path) -> bytes:
    with sqlite3.connect(path) as database:
        database.execute("create table a (text)")
    return path.read_bytes()


KINDS: dict[str, Callable[[Path], bytes]] = {
    "a tar archive": lambda _: tar("w"),
    "a tar archive; unpack": lambda _: tar("w:gz"),
    "a tar archive;": lambda _: tar("w:xz"),
    "a zip archive; unpack": lambda _: zipped("a.jsonl"),
    "an Office document": lambda _: zipped("[Content_Types].xml", "word/document.xml"),
    "an Office document or e-book": lambda _: zipped("mimetype", "OEBPS/a.xhtml"),
    "a file of torch.save": lambda _: zipped("model/data.pkl", "model/data/0"),
    "numpy arrays": lambda _: zipped("a.npy", "b.npy"),
    "a numpy array": lambda _: saved(lambda file: np.save(file, np.arange(9))),
    "a pickle": lambda _: pickle.dumps({"text": TEXTS}),
    "an SQLite database": lambda folder: sqlite(folder / "a.db"),
    "a Parquet file": lambda _: b"PAR1\x15\x04\x15\x10" + bytes(50) + b"PAR1",
    "an Arrow file": lambda _: b"ARROW1\x00\x00" + bytes(50),
    "an Arrow stream": lambda _: b"\xff\xff\xff\xff\x10\x01\x00\x00" + bytes(50),
    "an HDF5 file": lambda _: b"\x89HDF\r\n\x1a\n" + bytes(50),
    "a safetensors file": lambda _: (64).to_bytes(8, "little") + b'{"__metadata__":{}}' + bytes(99),
    "a PDF document": lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "a PNG image": lambda _: b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a JPEG image": lambda _: b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "a program (ELF)": lambda _: b"\x7fELF\x02\x01\x01" + bytes(50),
    "a 7z archive": lambda _: b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(50),
    "an lz4 file": lambda _: b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(50),
    "the index of a corpus": lambda _: b"MMIDIDX\x00\x00\x01" + bytes(50),
    "a web archive": lambda _: b"WARC/1.0\r\nWARC-Type: warcinfo\r\n",
    "a pointer of Git LFS": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "binary, of no kind": lambda _: random.Random(3).randbytes(5000),
    "text in UTF-16LE without": lambda _: "plain text".encode("utf-16-le"),
    "text in another encoding": lambda _: ("Привет, мир. " * 9).encode("cp1251"),
    "text in another encoding than UTF-8 (5 %": lambda _: (
        ("L'été à la campagne, sans pluie. " * 9).encode("latin-1") + b"x" * 300
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a"])
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(KINDS[kind](tmp_path))
    with pytest.raises(SpecError) as refused:
        prepare([str(path)], str(tmp_path / "out"), tokenizer="byte")
    assert f": {path} is {kind}" in str(refused.value)


def test_all_refused_files_are_named_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n:02}.txt" for n in range(13)]
    for path in paths:
        path.write_bytes(b"\x7fELF" + bytes(9))
    with pytest.raises(SpecError) as refused:
        Documents(paths)
    assert [violation.value for violation in refused.value.violations] == [*map(str, paths[:10]), None]
    assert "3 more files" in refused.value.violations[-1].constraint


def test_a_corpus_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("text " * 99)
    prepare([str(tmp_path / "in.txt")], str(tmp_path / "c" / "train"), tokenizer="byte")
    with pytest.raises(SpecError, match="the tokens of a corpus in Megatron's format"):
        prepare([str(tmp_path / "c" / "train.bin")], str(tmp_path / "out"), tokenizer="byte")
    with pytest.raises(SpecError, match="passed over: 2 settings or description .*, 1 .bin .*, 1 .idx"):
        prepare([str(tmp_path / "c")], str(tmp_path / "out"), tokenizer="byte")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_understood(tmp_path: Path, encoding: str) -> None:
    text = json.dumps({"text": "naïve 日本 🚀"}, ensure_ascii=False) + "\n"
    path = tmp_path / "a.jsonl"
    assert texts(path, (text * 3).encode(encoding)) == ["naïve 日本 🚀"] * 3
    path.write_bytes("fine".encode("utf-16") + b"\x00\xd8" + "!".encode("utf-16-le"))
    path.rename(tmp_path / "a.txt")
    documents = Documents([tmp_path / "a.txt"])
    assert list(documents) == ["fine\ufffd\ufffd!"]
    assert documents.counts.undecodable_bytes == 2


def test_damage_behind_the_beginning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="not text to its end: 9,999 of its bytes"):
        texts(tmp_path / "a.txt", b"fine\n" * 20_000 + b"\xff" * 9_999)
