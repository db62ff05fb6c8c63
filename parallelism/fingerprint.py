"""Which corpus a run was trained on, so that one that was replaced is noticed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from frontrunner.configs.data import DataSpec
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.plain_files import read_plain
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.corpus import LARGEST_TOKENIZER, unreadable

_BLOCK, _BLOCKS = 4096, 64


def fingerprint(spec: RunSpec) -> dict[str, str] | None:
    """What identifies the corpus of a run: its path, and a digest of its files; None for synthetic data.

    Files of a terabyte cannot be read whole at each start: sizes and 64 blocks of each file are. The
    tokenizer is read whole. SpecError if a file cannot be read.
    """
    data = spec.data
    if not isinstance(data, DataSpec):
        return None
    found = {"data.train": data.train}
    digest = sha256()
    for path in (Path(f"{data.train}.bin"), Path(f"{data.train}.idx")):
        try:
            _add_sample(digest, path)
        except OSError as error:
            raise unreadable(data.train, path, error) from error
    found["tokens"] = digest.hexdigest()
    if data.tokenizer is not None:
        with suppress(OSError):  # it is checked where it is used
            found["tokenizer"] = sha256(read_plain(Path(data.tokenizer), LARGEST_TOKENIZER)).hexdigest()
    return found


def check_same_corpus(spec: RunSpec, before: Mapping[str, str] | None) -> None:
    """SpecError if the run's corpus was replaced by another one since ``before``, its fingerprint then.

    A corpus at another path is a change that the user asked for, and that is shown.
    """
    now = fingerprint(spec) if before else None
    if before is None or now is None or now["data.train"] != before.get("data.train"):
        return
    fix = "restore it, or prepare it under another name and start a new run with checkpoint.start_from"
    violations = [
        Violation(key, getattr(spec.data, key.partition(".")[2]), f"{what} changed since the run began", fix)
        for key, part, what in (
            ("data.train", "tokens", "the corpus was replaced: its tokens"),
            ("data.tokenizer", "tokenizer", "the tokenizer"),
        )
        if part in before and now.get(part) != before[part]
    ]
    if violations:
        raise SpecError(violations)


def _add_sample(digest: Any, path: Path) -> None:
    """Add a file's size and evenly spaced blocks to a digest."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "little"))
        for place in sorted({round(i * max(0, size - _BLOCK) / (_BLOCKS - 1)) for i in range(_BLOCKS)}):
            file.seek(place)
            digest.update(file.read(_BLOCK))
