"""Tokenizers for preparing a corpus: from a file, of bytes, or trained on the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.parallelism.corpus import LARGEST_TOKENIZER

_END_TOKEN = "<|endoftext|>"
_END_TOKENS = (_END_TOKEN, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
_BYTES = 256
_TRAINING_CHARACTERS = 2**28
_LARGEST_ID = 2**31 - 1


@dataclass(frozen=True)
class Encoder:
    """A tokenizer, the text of its tokenizer.json, and the token that ends a document.

    ``vocab_size`` is the largest id plus one (ids may have gaps).
    """

    tokenizer: Tokenizer
    json: bytes
    end_token: str
    end_token_id: int
    vocab_size: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without added special tokens; in parallel on all cores."""
        return [
            encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        ]


def byte_encoder() -> Encoder:
    """Token n is byte n; the end of a document is token 256."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # ByteLevel writes printable bytes as themselves, and the others, in order, as characters above 255
    other = iter(sorted(char for char in alphabet if ord(char) >= _BYTES))
    vocabulary = {chr(byte) if chr(byte) in alphabet else next(other): byte for byte in range(_BYTES)}
    tokenizer = _byte_level(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens([_END_TOKEN])
    return _encoder(tokenizer, tokenizer.to_str(pretty=True).encode(), None)


def trained_encoder(vocab_size: int, documents: Iterable[str], characters: int) -> Encoder:
    """A byte-level BPE trained on ``documents``, which hold about ``characters`` in total: on all of them up
    to 268 million characters, else on an evenly spread sample. May be smaller than ``vocab_size``."""
    if vocab_size <= _BYTES:
        fix = f"write train:N with N of at least {_BYTES + 1} (all bytes and the end of a document)"
        raise SpecError([Violation("--tokenizer", f"train:{vocab_size}", "the vocabulary is too small", fix)])
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_END_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_evenly(documents, _TRAINING_CHARACTERS / max(characters, 1)), trainer)
    return _encoder(tokenizer, tokenizer.to_str(pretty=True).encode(), None)


def file_encoder(path: Path, end_token: str | None) -> Encoder:
    """The tokenizer of a Hugging Face tokenizer.json; ``end_token`` is needed if its name is unusual."""
    try:
        content = read_plain(path, LARGEST_TOKENIZER)
    except OSError as error:
        fix = "give a tokenizer.json, byte or train:N (for example train:8192)"
        raise _bad_file(path, f"{path} cannot be read ({error.strerror})", fix) from error
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except ValueError as error:
        raise _bad_file(
            path, f"{path} is not a tokenizer.json ({error})", "give a Hugging Face tokenizer.json"
        ) from error
    # A file may truncate or pad texts to a length, but documents must stay whole.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return _encoder(tokenizer, content, end_token, path)


def _byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _encoder(
    tokenizer: Tokenizer, content: bytes, end_token: str | None, path: Path | None = None
) -> Encoder:
    # "</s>" in a document is text, not the end of the document
    tokenizer.encode_special_tokens = True
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    wanted = _END_TOKENS if end_token is None else (end_token,)
    found = next((token for token in wanted if token in vocabulary), None)
    if found is None:
        problem = f"its vocabulary has no token to end a document: none of {', '.join(wanted)}"
        raise _bad_file(path, problem, "give one of its tokens with --end-token")
    largest = max(vocabulary.values())
    if largest > _LARGEST_ID:
        problem = f"its largest token is {largest:,}, but a corpus holds none above {_LARGEST_ID:,}"
        raise _bad_file(path, problem, "give the tokenizer of a trained model")
    return Encoder(tokenizer, content, found, vocabulary[found], largest + 1)


def _evenly(documents: Iterable[str], share: float) -> Iterator[str]:
    seen = taken = 0
    for text in documents:
        seen += len(text)
        if taken < seen * share:
            taken += len(text)
            yield text


def _bad_file(path: Path | None, problem: str, fix: str) -> SpecError:
    return SpecError([Violation("--tokenizer", str(path), problem, fix)])
