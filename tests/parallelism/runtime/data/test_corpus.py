"""Bad corpora end in a SpecError that says what is wrong; no damaged index is read as other tokens."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.corpus import check_data, read_index, read_info, write_index
from frontrunner.parallelism.runtime.data import open_dataset
from frontrunner.parallelism.runtime.data.prepare import prepare

from .conftest import MakeCorpus, MakeSpec

LENGTHS = [30, 40, 5, 25, 50, 50]
HEADER = 34


def problem(spec: object) -> str:
    with pytest.raises(SpecError) as caught:
        check_data(spec)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_good_corpus_and_synthetic_data_pass(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    check_data(make_spec(make_corpus(LENGTHS)))
    check_data(make_spec(None))


def test_checking_imports_no_torch() -> None:
    code = "import sys, frontrunner.parallelism.corpus; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_both_missing_files_are_named(tmp_path: Path, make_spec: MakeSpec) -> None:
    message = problem(make_spec(str(tmp_path / "none")))
    assert "none.idx (no such file)" in message
    assert "none.bin (no such file)" in message


def test_a_prefix_with_its_ending(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    prefix = make_corpus(LENGTHS)
    assert f"write the prefix alone: {prefix}" in problem(make_spec(f"{prefix}.bin"))


@pytest.mark.parametrize(
    ("sequences", "marks"), [(1 << 61, 2), (1 << 33, 2), (1, 1 << 33), ((1 << 64) - 1, 1)]
)
def test_an_index_that_claims_more_than_there_can_be(tmp_path: Path, sequences: int, marks: int) -> None:
    """Its arrays may be terabytes of nothing, so they are not read."""
    (tmp_path / "c.bin").write_bytes(bytes(20))
    (tmp_path / "c.idx").write_bytes(struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, sequences, marks))
    if (size := HEADER + 12 * sequences + 8 * marks) < 1 << 40:
        os.truncate(tmp_path / "c.idx", size)
    with pytest.raises(SpecError, match=r"c\.idx is (corrupt|truncated): "):
        read_index(str(tmp_path / "c"))


def test_a_description_that_is_a_pipe_or_huge(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(SpecError, match="is not a regular file"):
        read_info(str(tmp_path / "pipe"))
    (tmp_path / "huge.json").touch()
    os.truncate(tmp_path / "huge.json", 1 << 40)
    with pytest.raises(SpecError, match="is larger than"):
        read_info(str(tmp_path / "huge"))


@pytest.mark.parametrize(
    ("position", "value", "says"),
    [
        (0, b"XX", "not a Megatron index"),
        (9, b"\x02", "version 2"),
        (17, b"\x09", "type code 9"),
        (17, b"\x07", "integer type"),
        (17, b"\x08", "are not contiguous"),  # uint16 instead of int32
        (18, b"\x07", "truncated"),
        (18, b"\x05", "corrupt: it has"),
        (26, b"\xff" * 8, "truncated"),
        (HEADER, b"\x1f", "are not contiguous"),
        (HEADER + 3, b"\x80", "are not contiguous"),
        (HEADER + 24 + 8, b"\x00", "are not contiguous"),
        (HEADER + 24 + 48, b"\x01", "do not cover"),
        (HEADER + 24 + 48 + 8, b"\x05", "do not cover"),
    ],
)
def test_a_corrupt_index(
    make_corpus: MakeCorpus, make_spec: MakeSpec, position: int, value: bytes, says: str
) -> None:
    prefix = make_corpus(LENGTHS)
    index = Path(f"{prefix}.idx")
    content = index.read_bytes()
    index.write_bytes(content[:position] + value + content[position + len(value) :])
    message = problem(make_spec(prefix))
    assert says in message
    assert "prepare the corpus again" in message


@pytest.mark.parametrize("size", [0, 5, 9, 33, 34, 60, 34 + 6 * 12 + 7 * 8 - 1])
def test_a_truncated_index(make_corpus: MakeCorpus, make_spec: MakeSpec, size: int) -> None:
    prefix = make_corpus(LENGTHS)
    with Path(f"{prefix}.idx").open("r+b") as file:
        file.truncate(size)
    assert f"{prefix}.idx is" in problem(make_spec(prefix))


@pytest.mark.parametrize("size", [0, 799, 801])
def test_tokens_that_disagree_with_the_index(make_corpus: MakeCorpus, make_spec: MakeSpec, size: int) -> None:
    prefix = make_corpus(LENGTHS)
    with Path(f"{prefix}.bin").open("r+b") as file:
        file.truncate(size)
    assert f".bin has {size:,} bytes" in problem(make_spec(prefix))
    assert "describes 800" in problem(make_spec(prefix))


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_an_empty_corpus(make_corpus: MakeCorpus, make_spec: MakeSpec, lengths: list[int]) -> None:
    assert "empty corpus" in problem(make_spec(make_corpus(lengths)))


def test_sequences_of_negative_length(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    assert "are not contiguous" in problem(make_spec(make_corpus([30, -5, 40])))


def test_splits_shorter_than_a_sample_are_both_named(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    prefix = make_corpus([20, 8])
    message = problem(make_spec(prefix, seq_len=20))
    assert "train split has 20 tokens" in message
    assert "validation split has 8 tokens" in message
    assert "= 21" in message
    check_data(make_spec(prefix, seq_len=7))


def test_one_document_cannot_be_split(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    prefix = make_corpus([100])
    found = problem(make_spec(prefix))
    assert "train split has 0 tokens, but" in found and "of 1 document is for" in found
    check_data(make_spec(prefix, validation_fraction=0.0, validation_samples=0))


def test_the_last_documents_validate(make_corpus: MakeCorpus) -> None:
    index = read_index(make_corpus([10] * 40))
    assert index.sequences("train", 0.1) == range(36)
    assert index.sequences("validation", 0.1) == range(36, 40)
    assert index.sequences("validation", 0.001) == range(39, 40)
    assert index.sequences("validation", 0.0) == range(40, 40)


def test_a_vocabulary_larger_than_the_models(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    prefix = make_corpus(LENGTHS)
    check_data(make_spec(prefix, vocab_size=200))
    message = problem(make_spec(prefix, vocab_size=199))
    assert "model.vocab_size = 199" in message
    assert "holds the token 199" in message
    assert "set model.vocab_size to 200" in message


def test_negative_tokens(make_corpus: MakeCorpus, make_spec: MakeSpec) -> None:
    prefix = make_corpus([200, 56], dtype="int8")
    assert "token -128" in problem(make_spec(prefix))


@pytest.fixture
def prepared(tmp_path: Path) -> str:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(f"text number {number}\n" * 20)
    prepare([str(tmp_path)], str(tmp_path / "out"), tokenizer="byte")
    return str(tmp_path / "out")


def test_the_description_beside_a_corpus(prepared: str, make_spec: MakeSpec, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    check_data(make_spec(prepared, vocab_size=257, tokenizer=str(tokenizer)))
    assert "set model.vocab_size to 257" in problem(make_spec(prepared, vocab_size=256))
    other = tmp_path / "other.json"
    other.write_text(tokenizer.read_text() + "\n")
    message = problem(make_spec(prepared, tokenizer=str(other)))
    assert "data.tokenizer" in message
    assert "is not the tokenizer that made" in message
    assert f"use {tokenizer}" in problem(make_spec(prepared, tokenizer="none.json"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tokens": 5}'])
def test_a_description_that_is_damaged(prepared: str, make_spec: MakeSpec, text: str) -> None:
    Path(f"{prepared}.json").write_text(text)
    assert "not a corpus description" in problem(make_spec(prepared))


def test_a_description_of_another_corpus(prepared: str, make_spec: MakeSpec) -> None:
    path = Path(f"{prepared}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"documents": 9}))
    assert "describe different corpora" in problem(make_spec(prepared))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder for a corpus whose index is to be damaged, and the undamaged index."""
    folder = tmp_path_factory.mktemp("damaged")
    np.arange(200, dtype=np.uint16).tofile(folder / "corpus.bin")
    write_index(folder / "corpus.idx", np.dtype(np.uint16), np.array(LENGTHS, np.int32))
    return folder, (folder / "corpus.idx").read_bytes()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_index_is_read_as_other_tokens(
    damaged: tuple[Path, bytes], make_spec: MakeSpec, data: st.DataObject
) -> None:
    folder, content = damaged
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    size = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    (folder / "corpus.idx").write_bytes(changed[:size] + b"\0" * data.draw(st.sampled_from([0, 0, 0, 1, 8])))
    spec = make_spec(str(folder / "corpus"))
    try:
        check_data(spec)
        sample = open_dataset(spec, split="train")[0]
    except SpecError:
        return
    # What cannot be seen is where documents begin, and int16 for uint16: the sequences are the same.
    offset = HEADER + 12 * len(LENGTHS)
    assert changed[:17] == content[:17]
    assert changed[18:offset] == content[18:offset]
    assert len(sample) == 9
    starts = np.cumsum([0, *LENGTHS])
    jumps = np.flatnonzero(np.diff(sample) != 1)
    assert all(sample[jump + 1] in starts for jump in jumps)
