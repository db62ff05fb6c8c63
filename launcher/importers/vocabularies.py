"""How many tokens the tokenizer has that a trainer's settings name."""

from __future__ import annotations

import json
import re
from pathlib import Path

from frontrunner.configs.errors import Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.launcher.importers.settings import DEFAULT, Conversion, Setting, integer

_LARGEST = 1 << 27
#: Published tokenizers by words of their names: tokens, added ones too.
_KNOWN = (
    (r"(^|/)gpt2(-vocab.json|-merges.txt)?$", 50257, "GPT-2's tokenizer"),
    (r"20b_tokenizer\.json$|(^|/)(gpt-neox-20b|pythia-[\w.-]+)$", 50277, "GPT-NeoX-20B's tokenizer"),
    (r"(^|/)(meta-)?llama-?3(?!\d)[\w.-]*$", 128256, "Llama 3's tokenizer"),
    (r"(^|/)llama-?2(?!\d)[\w.-]*$", 32000, "Llama 2's tokenizer"),
    (r"(^|/)(mistral-7b-v0\.[12]|mixtral-8x7b[\w.-]*)$", 32000, "Mistral 7B's tokenizer"),
)
#: Tokenizers that mean one vocabulary, whatever their file is called.
_TYPES = {
    "Llama2Tokenizer": (32000, "Llama 2's tokenizer"),
    "Llama3Tokenizer": (128256, "Llama 3's tokenizer"),
}
_PATHS = (
    "tokenizer_model",
    "tokenizer_name_or_path",
    "vocab_file",
    "tokenizer_path",
    "hf_assets_path",
    "merge_file",
)


def put(own: Conversion, multiple: int) -> None:
    """Tokens, and rows of the embedding: a multiple of make_vocab_size_divisible_by times tensor ranks.

    ``multiple``: the trainer's default.
    """
    fixed, every = (
        own.take("padded_vocab_size", "pad_vocab_size_to"),
        own.take("make_vocab_size_divisible_by"),
    )
    found = size(own)
    rows = own.value(fixed, integer, "a whole number, at least 1")
    if found is None and rows and fixed:
        found = rows, fixed
    if "model.vocab_size" in own.fixed:
        found = int(own.fixed["model.vocab_size"]), "-o"
    if found is None:
        _ask(own)
        return
    tokens, origin = found
    own.put("model.vocab_size", tokens, origin)
    if rows and fixed:
        own.put("model.padded_vocab_size", rows, fixed)
        return
    divisor = own.value(every, integer, "a whole number, at least 1") if every else multiple
    if divisor:
        divisor *= own.got("layout.tensor") or 1
        own.put("model.padded_vocab_size", -(-tokens // divisor) * divisor, every or DEFAULT)


def _ask(own: Conversion) -> None:
    """Name the tokenizer, whose size nothing here tells."""
    named = next(
        (setting for key in _PATHS if (setting := own.take(key)) and setting.value is not None), None
    )
    if "vocab_size" in own.settings and named is None:
        return
    fix = "add -o model.vocab_size=VALUE"
    what = "is not known: no tokenizer is named"
    if named is not None:
        what = f"is not known: the tokenizer of {named.written} is not here"
    where = (named.file, named.line) if named else (None, None)
    own.problems.append(Violation("model.vocab_size", None, what, fix, *where))


def size(own: Conversion) -> tuple[int, Setting | str] | None:
    """Tokens and their origin, from a size, a file that is here, or a name that is known."""
    kind = own.take("tokenizer_type")
    paths = [setting for key in _PATHS if (setting := own.take(key)) is not None]
    given = own.take("vocab_size")
    if given is not None:
        if (value := own.value(given, lambda found: integer(found), "a whole number, at least 1")) is None:
            return None
        # Megatron-LM's NullTokenizer adds the end-of-document token (core_v0.16), or does not (later).
        return value + (kind is not None and kind.value == "NullTokenizer"), given
    for setting in paths:
        if isinstance(setting.value, str) and (counted := _counted(Path(setting.value))):
            return counted, setting
    if kind is not None and str(kind.value) in _TYPES:
        tokens, words = _TYPES[str(kind.value)]
        return tokens, f"{kind}: {words}"
    for setting in paths:
        for pattern, tokens, words in _KNOWN:
            if re.search(pattern, setting.shown.lower()):
                return tokens, f"{setting}: {words}"
    return None


def _counted(path: Path) -> int | None:
    """Tokens of a tokenizer.json or a vocab.json that is here."""
    if path.suffix != ".json":
        path = path / "tokenizer.json"
    try:
        tree = json.loads(read_plain(path, _LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(tree, dict):
        return None
    model = tree.get("model")
    if not isinstance(model, dict):
        return len(tree) if all(isinstance(value, int) for value in tree.values()) else None
    added = tree.get("added_tokens")
    known = model.get("vocab")
    words = {str(token) for token in known} if isinstance(known, dict) else None
    if words is None:
        return len(known) if isinstance(known, list) else None
    more = {str(token.get("content")) for token in added or [] if isinstance(token, dict)}
    return len(words | more)
