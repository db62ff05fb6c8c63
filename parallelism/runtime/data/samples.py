"""Samples for training: a function of the seed and the sample's number alone.

megatron-core's GPTDataset cuts documents into samples and shuffles them, but its order depends on the number
of samples requested. Here each epoch is a GPTDataset of one epoch with its own seed, so neither the number of
steps nor the layout nor a resume changes sample n.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.corpus import CorpusIndex, Split, read_index

if TYPE_CHECKING:
    from megatron.core.datasets.gpt_dataset import GPTDataset

_VALIDATION_SEED = 0  # independent of training.seed: runs with different seeds validate on the same tokens
_UNIGRAM_TOKENS = 2**28
_EPOCHS_HELD = 2  # samples near the boundary of two epochs may be requested in any order


class Dataset(Protocol):
    """``dataset[n]`` is sample n >= 0, int64 [seq_len + 1], a fresh array; sample ``len_per_epoch`` starts
    the second epoch (None: the samples never repeat)."""

    @property
    def len_per_epoch(self) -> int | None: ...

    def __getitem__(self, sample: int) -> NDArray[np.int64]: ...


def open_dataset(spec: RunSpec, *, split: Split) -> Dataset:
    """The samples of a split. Needs no process group and writes no cache: each rank holds an epoch's index in
    memory (12 bytes per sample, 4 per document). Raises SpecError for bad files."""
    seed = spec.training.seed if split == "train" else _VALIDATION_SEED
    if spec.data == "synthetic":
        return SyntheticSamples(spec.model.vocab_size, spec.training.seq_len, seed, split)
    index = read_index(spec.data.train)
    sequences = index.sequences(split, spec.data.validation_fraction)
    return CorpusSamples(index, sequences, spec.training.seq_len, spec.model.vocab_size, seed)


def unigram_loss(spec: RunSpec, samples: int | None = None) -> float | None:
    """Cross entropy, in nats per token, of the first ``samples`` validation samples (default:
    ``training.validation_samples``) under a unigram model of the train split (counts plus one, over at most
    268 million evenly spread tokens). A model that ignores the context would reach it. None without a corpus
    or validation."""
    samples = spec.training.validation_samples if samples is None else samples
    if spec.data == "synthetic" or samples == 0:
        return None
    index, vocabulary = read_index(spec.data.train), spec.model.vocab_size
    counts = np.ones(vocabulary)
    train = index.sequences("train", spec.data.validation_fraction)
    for chunk in index.token_chunks(train, _UNIGRAM_TOKENS):
        _check_tokens(chunk, vocabulary, spec.data.train)
        counts += np.bincount(chunk, minlength=vocabulary)
    cost = np.log(counts.sum()) - np.log(counts)
    validation = open_dataset(spec, split="validation")
    return float(np.mean([cost[validation[n][1:]].mean() for n in range(samples)]))


class SyntheticSamples:
    """Uniform random tokens from raw Philox output; numpy guarantees that its stream never changes."""

    len_per_epoch = None

    def __init__(self, vocab_size: int, seq_len: int, seed: int, split: Split) -> None:
        self._vocab_size, self._seq_len = vocab_size, seq_len
        self._key = [seed, int(split == "validation")]

    def __getitem__(self, sample: int) -> NDArray[np.int64]:
        if sample < 0:
            raise IndexError(sample)
        raw = np.random.Philox(np.random.SeedSequence([*self._key, sample])).random_raw(self._seq_len + 1)
        return (raw % np.uint64(self._vocab_size)).astype(np.int64)


class CorpusSamples:
    """Shuffled samples of some sequences of a corpus; each epoch has another order."""

    def __init__(
        self, index: CorpusIndex, sequences: range, seq_len: int, vocab_size: int, seed: int
    ) -> None:
        from megatron.core.datasets.indexed_dataset import IndexedDataset

        self.len_per_epoch = (index.tokens_in(sequences) - 1) // seq_len
        if self.len_per_epoch < 1:
            constraint = f"has a split shorter than one sample of training.seq_len + 1 = {seq_len + 1} tokens"
            raise SpecError(
                [Violation("data.train", index.prefix, constraint, "prepare more text or lower seq_len")]
            )
        self._prefix, self._sequences = index.prefix, sequences
        self._seq_len, self._vocab_size, self._seed = seq_len, vocab_size, seed
        self._indexed = IndexedDataset(index.prefix, multimodal=False, mmap=True)
        self._epochs: dict[int, GPTDataset] = {}

    def __getitem__(self, sample: int) -> NDArray[np.int64]:
        if sample < 0:
            raise IndexError(sample)
        epoch, position = divmod(sample, self.len_per_epoch)
        item = self._epoch(epoch)[position]
        # A copy, because closing the IndexedDataset closes the map behind the tokens.
        tokens: NDArray[np.int64] = np.append(item["tokens"].numpy(), item["labels"][-1].numpy())
        _check_tokens(tokens, self._vocab_size, self._prefix)
        return tokens

    def _epoch(self, epoch: int) -> GPTDataset:
        if epoch not in self._epochs:
            while len(self._epochs) >= _EPOCHS_HELD:
                del self._epochs[next(iter(self._epochs))]
            seed = np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]
            self._epochs[epoch] = self._build_epoch(int(seed))
        return self._epochs[epoch]

    def _build_epoch(self, seed: int) -> GPTDataset:
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.utils import Split as MegatronSplit

        # It warns that indices are not cached, which is intended.
        logging.getLogger("megatron.core.datasets.gpt_dataset").setLevel(logging.ERROR)
        # Without a blend the config counts as `mock`. For a GPTDataset made by hand this only means that its
        # indices need no cache folder (where ranks would race) and no process group.
        config = GPTDatasetConfig(
            random_seed=seed,
            sequence_length=self._seq_len,
            tokenizer=_NoTokenizer(),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        sequences = np.arange(self._sequences.start, self._sequences.stop, dtype=np.int32)
        dataset = GPTDataset(self._indexed, self._prefix, sequences, None, MegatronSplit.train, config)
        assert len(dataset) == self.len_per_epoch
        return dataset


class _NoTokenizer:
    """What GPTDataset needs of a tokenizer if tokens are neither masked nor padded."""

    vocab_size = None
    eod = None
    unique_identifiers: dict[str, str] = {}


def _check_tokens(tokens: NDArray[Any], vocab_size: int, prefix: str) -> None:
    least, most = tokens.min(), tokens.max()
    if least < 0 or most >= vocab_size:
        token = int(least if least < 0 else most)
        constraint = f"holds the token {token}, but the model's tokens are 0 to {vocab_size - 1}"
        fix = "prepare the corpus again, or set model.vocab_size to its tokenizer's size"
        raise SpecError([Violation("data.train", prefix, constraint, fix)])
