"""Writes ``records.jsonl``, on rank 0.

Each line is flushed, so that readers see whole lines and a killed run loses none.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import frontrunner.configs
from frontrunner.configs.plain_files import not_followed
from frontrunner.configs.schema import RunSpec
from frontrunner.run_folder import files
from frontrunner.run_folder.records import OnRecord

_BLOCK = 1 << 16


class RecordWriter:
    """Appends to ``run_dir/records.jsonl``; ``on_record`` gets each record as readers will see it."""

    def __init__(self, run_dir: Path, on_record: OnRecord | None = None) -> None:
        _drop_torn_line(run_dir / files.RECORDS)
        self._file = open(  # noqa: SIM115
            run_dir / files.RECORDS, "a", encoding="utf-8", opener=not_followed
        )
        self._on_record = on_record

    def write(self, kind: str, **fields: object) -> None:
        """Append one record. NaN and infinities become null, because JSON does not have them."""
        record: Any = {"kind": kind} | {name: _json_value(value) for name, value in fields.items()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        if self._on_record is not None:
            self._on_record(record)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def header(
    spec: RunSpec,
    layout_description: Mapping[str, object],
    device: str,
    host_names: Sequence[str],
    versions: Mapping[str, str | None],
) -> dict[str, Any]:
    """The fields of a run's first record, except ``continued_from``."""
    return {
        "spec": spec.model_dump(mode="json"),
        "layout": dict(layout_description),
        "versions": dict(versions),
        "git_commit": git_commit(Path(frontrunner.configs.__file__).resolve().parent.parent),
        "host_names": list(host_names),
        "device": device,
        "time": time.time(),
    }


def git_commit(root: Path) -> str | None:
    """The commit checked out at ``root``, or None if that is not the top of a git work tree.

    Read from git's files: starting a program from a rank is not safe on every interconnect, and git
    refuses trees of other owners.
    """
    git = root / ".git"
    try:
        if git.is_file():  # a linked work tree or a submodule
            git = root / git.read_text().removeprefix("gitdir:").strip()
        shared = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (shared / name).exists():
            return (shared / name).read_text().strip()
        packed = (line.split() for line in (shared / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [name]), None)
    except OSError:
        return None


def _drop_torn_line(path: Path) -> None:
    """Truncate a partial last line of a killed run."""
    if not path.exists():
        return
    with open(path, "rb+", opener=not_followed) as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            if newline >= 0:
                file.truncate(begin + newline + 1)
                return
            end = begin
        file.truncate(0)


def _json_value(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return value
