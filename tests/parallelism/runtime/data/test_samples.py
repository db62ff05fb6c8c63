"""Which tokens a sample holds depends on the seed and its number alone, and an epoch shows all of them."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.corpus import write_index
from frontrunner.parallelism.runtime.data import open_dataset, unigram_loss

from .conftest import MakeCorpus, MakeSpec

RECORDED = [20, 3, 16, 49, 23, 37, 39, 48, 9]
LENGTHS = [30, 40, 5, 25, 1, 50, 49, 300, 7, 93]  # the last two validate: 100 tokens
SEQ_LEN = 8


@pytest.fixture
def prefix(make_corpus: MakeCorpus) -> str:
    return make_corpus(LENGTHS)


def test_a_sample_is_seq_len_plus_one_fresh_int64(prefix: str, make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(prefix), split="train")
    first, again = dataset[3], dataset[3]
    assert first.dtype == np.int64
    assert first.shape == (SEQ_LEN + 1,)
    first[:] = -1
    np.testing.assert_array_equal(again, dataset[3])


def test_neither_steps_nor_layout_nor_order_of_reading_changes_a_sample(
    prefix: str, make_spec: MakeSpec
) -> None:
    runs = [
        make_spec(prefix, steps=1, global_batch_size=4),
        make_spec(prefix, steps=5000, global_batch_size=16, nodes=4, validation_samples=7),
    ]
    numbers = [*range(200), 10_000]
    expected = [open_dataset(runs[0], split="train")[n] for n in numbers]
    backwards = open_dataset(runs[1], split="train")
    for number, sample in reversed(list(zip(numbers, expected, strict=True))):
        np.testing.assert_array_equal(backwards[number], sample)


def test_each_epoch_is_a_permutation_that_covers_the_split(prefix: str, make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(prefix), split="train")
    per_epoch = dataset.len_per_epoch
    assert per_epoch == (500 - 1) // SEQ_LEN
    orders = []
    for epoch in range(3):
        samples = [dataset[epoch * per_epoch + n] for n in range(per_epoch)]
        inputs = np.concatenate([sample[:-1] for sample in samples])
        # tokens are all different: each is an input once, but for the rest shorter than a sample
        assert len(np.unique(inputs)) == len(inputs) == per_epoch * SEQ_LEN
        assert inputs.max() < 500
        orders.append(inputs.tolist())
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_samples_continue_within_documents(prefix: str, make_spec: MakeSpec) -> None:
    starts = set(np.cumsum([0, *LENGTHS]).tolist())
    dataset = open_dataset(make_spec(prefix), split="train")
    for number in range(100):
        sample = dataset[number]
        assert {int(t) for t in sample[1:][np.diff(sample) != 1]} <= starts


def test_seeds_differ_but_validate_on_the_same_tokens(prefix: str, make_spec: MakeSpec) -> None:
    one, two = (make_spec(prefix, seed=seed) for seed in (1, 2))
    train = [[open_dataset(spec, split="train")[n].tolist() for n in range(10)] for spec in (one, two)]
    assert train[0] != train[1]
    validation = [
        [open_dataset(spec, split="validation")[n].tolist() for n in range(12)] for spec in (one, two)
    ]
    assert validation[0] == validation[1]
    assert min(min(sample) for sample in validation[0]) >= 500


def test_megatrons_own_documents_of_several_sequences(tmp_path: Path, make_spec: MakeSpec) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    for document in range(10):
        builder.add_document(np.arange(document * 20, document * 20 + 20), [15, 5])
    builder.finalize(str(tmp_path / "theirs.idx"))
    spec = make_spec(str(tmp_path / "theirs"), vocab_size=200)
    train, validation = (open_dataset(spec, split=split) for split in ("train", "validation"))
    assert (train.len_per_epoch, validation.len_per_epoch) == ((160 - 1) // 8, (40 - 1) // 8)
    assert max(train[n].max() for n in range(19)) < 160
    assert min(validation[n].min() for n in range(4)) >= 160


def test_reading_leaves_no_files_and_says_nothing(prefix: str, make_spec: MakeSpec) -> None:
    """In a process without torch.distributed; samples outlive the dataset and its memory map."""
    code = (
        "import pickle, sys\n"
        "from frontrunner.parallelism.runtime.data import open_dataset\n"
        "dataset = open_dataset(pickle.loads(bytes.fromhex(sys.argv[1])), split='train')\n"
        "sample = dataset[70]; del dataset; print(sample.sum())"
    )
    before = sorted(Path(prefix).parent.rglob("*"))
    spec = make_spec(prefix)
    command = [sys.executable, "-W", "ignore", "-c", code, pickle.dumps(spec).hex()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == str(open_dataset(spec, split="train")[70].sum())
    assert done.stderr == ""
    assert sorted(Path(prefix).parent.rglob("*")) == before


def test_a_sample_outlives_its_dataset(prefix: str, make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(prefix), split="train")
    sample = dataset[0]
    expected = sample.tolist()
    del dataset
    gc.collect()
    assert sample.tolist() == expected


def test_a_token_beyond_the_models_vocabulary_is_refused_when_read(prefix: str, make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(prefix, vocab_size=100), split="train")
    with pytest.raises(SpecError, match="holds the token"):
        for number in range(62):
            dataset[number]


def test_a_split_without_a_whole_sample(prefix: str, make_spec: MakeSpec) -> None:
    with pytest.raises(SpecError, match="shorter than one sample"):
        open_dataset(make_spec(prefix, validation_fraction=0.0), split="validation")


@pytest.mark.parametrize("data", ["corpus", "synthetic"])
def test_a_negative_number_is_refused(prefix: str, make_spec: MakeSpec, data: str) -> None:
    dataset = open_dataset(make_spec(prefix if data == "corpus" else None), split="train")
    with pytest.raises(IndexError):
        dataset[-1]


def test_sequences_of_one_token(prefix: str, make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(prefix, seq_len=1), split="train")
    assert dataset.len_per_epoch == 499
    assert len({int(dataset[n][0]) for n in range(499)}) == 499


def test_synthetic_samples(make_spec: MakeSpec) -> None:
    dataset = open_dataset(make_spec(None, seq_len=1000, vocab_size=50), split="train")
    assert dataset.len_per_epoch is None
    samples = [dataset[n] for n in range(4)]
    assert samples[0].dtype == np.int64
    assert samples[0].shape == (1001,)
    assert len({sample.tobytes() for sample in samples}) == 4
    assert np.bincount(np.concatenate(samples), minlength=50).min() > 40
    assert np.concatenate(samples).max() == 49
    # recorded: another version of numpy must give the same
    assert open_dataset(make_spec(None, vocab_size=50), split="train")[5].tolist() == RECORDED


def test_synthetic_seeds_and_splits_differ(make_spec: MakeSpec) -> None:
    one, two = make_spec(None, seed=1, steps=3), make_spec(None, seed=2)
    seen = {open_dataset(spec, split="train")[0].tobytes() for spec in (one, two)}
    seen |= {open_dataset(one, split="validation")[0].tobytes()}
    assert len(seen) == 3
    assert open_dataset(make_spec(None, seed=1, steps=9), split="train")[0].tobytes() in seen


@pytest.mark.parametrize(("samples", "zeros", "ones"), [(None, 8, 8), (1, 0, 0), (2, 8, 8)])
def test_unigram_loss_is_that_of_counts_plus_one(
    tmp_path: Path, make_spec: MakeSpec, samples: int | None, zeros: int, ones: int
) -> None:
    train, validation = np.array([0] * 7 + [1] * 3), np.array([0] * 9 + [1] * 8)
    np.concatenate([train, validation]).astype(np.uint16).tofile(tmp_path / "c.bin")
    write_index(tmp_path / "c.idx", np.dtype(np.uint16), np.array([10, 17], np.int32))
    spec = make_spec(str(tmp_path / "c"), vocab_size=5, validation_fraction=0.5, validation_samples=2)
    if samples == 1:  # which of the two comes first is the shuffle's
        first = open_dataset(spec, split="validation")[0][1:]
        zeros, ones = int((first == 0).sum()), int((first == 1).sum())
    expected = -(zeros * math.log(8 / 15) + ones * math.log(4 / 15)) / (zeros + ones)
    assert unigram_loss(spec, samples) == pytest.approx(expected)


def test_unigram_loss_needs_a_corpus_and_validation(prefix: str, make_spec: MakeSpec) -> None:
    assert unigram_loss(make_spec(None)) is None
    assert unigram_loss(make_spec(prefix, validation_samples=0)) is None
