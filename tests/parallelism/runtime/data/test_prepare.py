"""Text to corpus: the files are Megatron's, the text comes back, and bad input is refused whole."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.corpus import read_index, read_info
from frontrunner.parallelism.runtime.data import prepare as preparing
from frontrunner.parallelism.runtime.data import tokenizer as tokenizer_module
from frontrunner.parallelism.runtime.data.prepare import prepare

TEXTS = ["plain\ntext\n", "naïve café — 日本語 🚀", "say <|endoftext|> </s> aloud", " \r\n\ttabs\r\n"]


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(TEXTS)))
    return str(path)


def documents_of(prefix: str) -> list[str]:
    """Read with Megatron's own class, decoded with the tokenizer beside the corpus."""
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    info = read_info(prefix)
    assert info is not None
    tokenizer = Tokenizer.from_file(str(Path(prefix).parent / info.tokenizer))
    dataset = IndexedDataset(prefix)
    documents = [dataset[n].tolist() for n in range(len(dataset))]
    assert all(ids[-1] == info.end_token_id for ids in documents)
    assert max(map(max, documents)) <= info.max_token < info.vocab_size
    return [tokenizer.decode(ids[:-1], skip_special_tokens=False) for ids in documents]


@pytest.mark.parametrize("tokenizer", ["byte", "train:300"])
def test_text_comes_back_through_megatrons_reader(lines: str, tmp_path: Path, tokenizer: str) -> None:
    prefix = str(tmp_path / "new" / "folder" / "corpus.v1")
    prepared = prepare([lines], prefix, tokenizer=tokenizer)
    assert documents_of(prefix) == TEXTS
    assert prepared.info == read_info(prefix)
    assert prepared.info.documents == len(TEXTS)
    assert prepared.info.tokens * 2 == Path(f"{prefix}.bin").stat().st_size
    assert sorted(path.name for path in Path(prefix).parent.iterdir()) == [
        "corpus.v1.bin",
        "corpus.v1.idx",
        "corpus.v1.json",
        "tokenizer.json",
    ]


def test_bytes_are_their_own_tokens(lines: str, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    info = prepare([lines], prefix, tokenizer="byte").info
    assert (info.vocab_size, info.end_token_id) == (257, 256)
    expected = [value for text in TEXTS for value in [*text.encode(), 256]]
    assert np.fromfile(f"{prefix}.bin", np.uint16).tolist() == expected


def test_the_files_equal_those_of_megatrons_builder(lines: str, tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    prepare([lines], ours, tokenizer="byte")
    builder = IndexedDatasetBuilder(f"{theirs}.bin", dtype=np.uint16)
    for text in TEXTS:
        ids = [*text.encode(), 256]
        builder.add_document(ids, [len(ids)])
    builder.finalize(f"{theirs}.idx")
    for ending in ("bin", "idx"):
        assert Path(f"{ours}.{ending}").read_bytes() == Path(f"{theirs}.{ending}").read_bytes()


def test_the_same_input_gives_the_same_bytes_on_any_number_of_cores(lines: str, tmp_path: Path) -> None:
    """In processes of their own: hash seeds and threads differ."""
    code = (
        "import sys; from frontrunner.parallelism.runtime.data.prepare import prepare\n"
        "prepare([sys.argv[1]], sys.argv[2], tokenizer='train:290')"
    )
    outputs = []
    for threads in ("1", "4"):
        prefix = tmp_path / threads / "out"
        command = [sys.executable, "-c", code, lines, str(prefix)]
        subprocess.run(command, check=True, env={"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads})
        outputs.append({path.name: path.read_bytes() for path in prefix.parent.iterdir()})
    assert outputs[0] == outputs[1]


def test_batches_do_not_show(lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare([lines], str(tmp_path / "one"), tokenizer="byte")
    monkeypatch.setattr(preparing, "_BATCH_CHARACTERS_PER_CPU", 1)
    prepare([lines], str(tmp_path / "many"), tokenizer="byte")
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "many.bin").read_bytes()


def test_preparing_imports_no_torch() -> None:
    code = "import sys, frontrunner.parallelism.runtime.data.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def tokenizer_file(path: Path, end: str = "</s>", **changes: object) -> Path:
    from tokenizers import models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, end: 70_000}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([end])
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    path.write_text(tokenizer.to_str())
    return path


def test_a_tokenizer_file_is_copied_and_neither_cuts_nor_pads(tmp_path: Path) -> None:
    source = tokenizer_file(tmp_path / "given.json")
    (tmp_path / "in.txt").write_text("a b a b b x")
    prefix = str(tmp_path / "out" / "corpus")
    info = prepare([str(tmp_path / "in.txt")], prefix, tokenizer=str(source)).info
    assert (info.vocab_size, info.dtype, info.end_token) == (70_001, "int32", "</s>")
    assert np.fromfile(f"{prefix}.bin", np.int32).tolist() == [1, 2, 1, 2, 2, 0, 70_000]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == source.read_bytes()


def test_an_unusual_end_token_must_be_named(tmp_path: Path) -> None:
    source = str(tokenizer_file(tmp_path / "given.json", end="<stop>"))
    (tmp_path / "in.txt").write_text("a b")
    arguments = ([str(tmp_path / "in.txt")], str(tmp_path / "out"))
    with pytest.raises(SpecError, match="--end-token"):
        prepare(*arguments, tokenizer=source)
    assert prepare(*arguments, tokenizer=source, end_token="<stop>").info.end_token_id == 70_000


def refused(inputs: Sequence[str | Path], tmp_path: Path, says: str, tokenizer: str = "byte") -> None:
    """Preparing is refused with these words, and nothing is left in the folder of the output."""
    output = tmp_path / "refused" / "corpus"
    with pytest.raises(SpecError) as caught:
        prepare([str(path) for path in inputs], str(output), tokenizer=tokenizer)
    assert says in str(caught.value)
    assert not output.parent.exists() or not list(output.parent.iterdir())


def test_no_documents(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty.jsonl").write_text('\n{"text": ""}\n')
    refused([tmp_path / "empty.txt", tmp_path / "empty.jsonl"], tmp_path, "no documents")
    refused([tmp_path / "empty.txt"], tmp_path, "no documents", tokenizer="train:300")


def test_paths_that_do_not_exist_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        prepare([str(tmp_path / "x.txt"), str(tmp_path / "y")], str(tmp_path / "out"), tokenizer="byte")
    assert [violation.value for violation in caught.value.violations] == [
        str(tmp_path / "x.txt"),
        str(tmp_path / "y"),
    ]


def test_a_folder_without_text(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "image.png").touch()
    refused([tmp_path / "in"], tmp_path, "no file that ends in .txt, .md")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"text": "a"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"body": "a", "id": 3}', "no text under the key 'text' or 'content' (it has 'body', 'id')"),
        ('{"text": 5}', "no text under the key 'text'"),
        ('"text"', "not an object"),
        ("{}", "no keys"),
    ],
)
@pytest.mark.parametrize("tokenizer", ["byte", "train:300"])
def test_a_bad_line_is_skipped_counted_and_named(
    tmp_path: Path, line: str, says: str, tokenizer: str
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"text": "fine"}}\n\n{line}\n')
    prepared = prepare([str(path)], str(tmp_path / "out"), tokenizer=tokenizer)
    assert prepared.info.documents == 1
    assert prepared.info.damaged_records + prepared.info.records_without_text == 1
    (warning,) = prepared.warnings
    assert "skipped: 1" in warning
    assert f"{path}:3 " in warning
    assert says in warning


@pytest.mark.parametrize(("line", "says"), [('{"body": "a"}', "--json-key body"), ('{"body', "jq -c .")])
def test_a_file_without_documents_is_named(tmp_path: Path, line: str, says: str) -> None:
    fine, path = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    fine.write_text('{"text": "fine"}\n' * 9)
    path.write_text(f"{line}\n" * 3)
    refused([fine, path], tmp_path, f"{path}:1 this line")
    refused([fine, path], tmp_path, says)
    path.write_text(f"{line}\n" * 3 + '{"text": "fine"}\n')
    refused([path], tmp_path, "3 of 4 records are damaged or have no text")


def test_a_broken_gzip_file(tmp_path: Path) -> None:
    path = tmp_path / "in.txt.gz"
    packed = gzip.compress(np.random.default_rng(0).bytes(1000).hex().encode())
    for content in (packed[:-200], packed[:200] + b"\xff" * 50 + packed[250:]):
        path.write_bytes(content)
        refused([path], tmp_path, "cannot be read")


@pytest.mark.parametrize(
    ("tokenizer", "says"),
    [
        ("train:", "has no valid size"),
        ("train:many", "has no valid size"),
        ("train:256", "too small"),
        ("bytes", "bytes cannot be read"),
        ("in.txt", "is not a tokenizer.json"),
    ],
)
def test_a_bad_tokenizer(tmp_path: Path, tokenizer: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("text")
    refused(["in.txt"], tmp_path, says, tokenizer=tokenizer)


def test_a_tokenizer_that_is_a_pipe_or_huge_or_has_tokens_that_no_corpus_holds(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("some text")
    os.mkfifo(tmp_path / "pipe")
    refused([tmp_path / "text.txt"], tmp_path, "is not a regular file", str(tmp_path / "pipe"))
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 40)
    refused([tmp_path / "text.txt"], tmp_path, "is larger than", str(tmp_path / "huge"))
    model = {"type": "BPE", "vocab": {"a": 2**32 - 1, "</s>": 1}, "merges": []}
    (tmp_path / "large").write_text(json.dumps({"version": "1.0", "model": model}))
    refused([tmp_path / "text.txt"], tmp_path, "its largest token is 4,294,967,295", str(tmp_path / "large"))


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("frontrunner.parallelism.runtime.data.records._LINE_CHARACTERS", 20)
    (tmp_path / "a.jsonl").write_text('{"text": "12345"}\n{"text": "123456789012"}\n')
    refused([tmp_path / "a.jsonl"], tmp_path, "a.jsonl:2 this line has more than 20 characters")


@pytest.mark.parametrize("output", ["folder/", ".", "corpus.bin", "corpus.idx", "tokenizer", "in.txt/corpus"])
def test_a_bad_prefix(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("text")
    with pytest.raises(SpecError, match="--output"):
        prepare(["in.txt"], output, tokenizer="byte")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_a_failed_preparation_leaves_the_old_corpus(lines: str, tmp_path: Path) -> None:
    prefix = str(tmp_path / "out")
    prepare([lines], prefix, tokenizer="byte")
    with Path(lines).open("a") as file:
        file.write("{\n")
    with pytest.raises(SpecError):
        prepare([lines], prefix, tokenizer="byte")
    assert documents_of(prefix) == TEXTS


def test_a_move_that_breaks_off_leaves_no_readable_mixture(
    lines: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = str(tmp_path / "out")
    prepare([lines], prefix, tokenizer="byte")
    move = Path.replace

    def break_off(self: Path, target: Path) -> Path:
        if target.suffix == ".json" and target.stem == "out":
            raise KeyboardInterrupt
        return move(self, target)

    monkeypatch.setattr(Path, "replace", break_off)
    with pytest.raises(KeyboardInterrupt):
        prepare([lines, lines], prefix, tokenizer="byte", replace=True)
    with pytest.raises(SpecError, match="out.idx"):
        read_index(prefix)


def test_a_corpus_replaces_one_of_its_prefix_and_takes_no_others_tokenizer(
    lines: str, tmp_path: Path
) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    prepare([lines], first, tokenizer="byte")
    prepare([lines], first, tokenizer="train:300", replace=True)
    with pytest.raises(SpecError, match="which made the corpus .*first"):
        prepare([lines], second, tokenizer="byte")
    prepare([lines], second, tokenizer=str(tmp_path / "tokenizer.json"))
    assert documents_of(first) == documents_of(second) == TEXTS


def test_a_vocabulary_is_trained_on_documents_spread_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "_TRAINING_CHARACTERS", 30)
    texts = ["A" * 10, *["b" * 10] * 4, "C" * 10, *["d" * 10] * 4]
    trained = tokenizer_module.trained_encoder(300, texts, characters=100)
    merged = {token[0] for token in trained.tokenizer.get_vocab() if len(token) > 1} - {"<"}
    assert merged == {"A", "b", "d"}


def test_progress_reaches_its_end_in_both_passes(lines: str, tmp_path: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}
    prepare(
        [lines],
        str(tmp_path / "out"),
        tokenizer="train:300",
        on_progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total)),
    )
    size = Path(lines).stat().st_size
    assert list(seen) == ["training the tokenizer", "tokenising"]
    for steps in seen.values():
        assert steps == sorted(steps)
        assert steps[-1] == (size, size)


def test_the_index_holds_each_document(lines: str, tmp_path: Path) -> None:
    prepare([lines], str(tmp_path / "out"), tokenizer="byte")
    assert read_index(str(tmp_path / "out")).num_documents == len(TEXTS)
