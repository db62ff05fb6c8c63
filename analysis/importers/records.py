"""Our own ``records.jsonl``: many files at once, with step records read as columns.

One JSON-lines reader takes the lines of all files of a batch. If a line is damaged, its file is read line by
line instead. Records of a continued run replace earlier records of the same steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic_core import from_json

from frontrunner.analysis.importers.records_header import number, run_log
from frontrunner.analysis.run_log import LARGEST_COUNT, LONGEST_STEP_S, STEP_SCHEMA, RunLog
from frontrunner.configs.plain_files import open_plain

#: Bytes of records to read at once: enough to keep the cores busy, little compared with the memory.
BATCH_BYTES = 48 << 20
_STEP = b'{"kind": "step"'
_LEVELS = ("package", "node", "network")
_FIELDS: dict[str, Any] = {
    name: kind
    for name, kind in STEP_SCHEMA.items()
    if name not in ("segment", "global_batch_size", "seq_len", "samples_per_s", "printed_flops_per_s")
    and not name.startswith("bytes_")
}
_SCHEMA = _FIELDS | {
    "model_flops_per_s_per_device": pl.Float64(),
    "bytes_sent": pl.Struct({level: pl.Float64() for level in _LEVELS}),
}


@dataclass
class _File:
    """The lines of one file: step records as raw lines, other records parsed."""

    path: Path
    steps: list[bytes] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)
    """A start of the run (from 0), and how many of ``steps`` belong to it."""
    headers: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0

    def add_steps(self, lines: list[bytes]) -> None:
        if lines:
            self.steps += lines
            self.segments.append((max(len(self.headers) - 1, 0), len(lines)))


def read(paths: Sequence[tuple[Path, str]]) -> Iterator[tuple[list[RunLog], pl.DataFrame]]:
    """Read the runs of named files, batch by batch; ``run`` is the index within the batch.

    An unreadable file gives a run without steps.
    """
    with ThreadPoolExecutor(1) as columns:  # reads one batch's columns while the next batch's lines are split
        waiting: list[Future[tuple[list[RunLog], pl.DataFrame]]] = []
        for batch in _batches(paths):
            waiting.append(columns.submit(_finish, batch))
            if len(waiting) > 1:
                yield waiting.pop(0).result()
        yield from (each.result() for each in waiting)


def _batches(paths: Sequence[tuple[Path, str]]) -> Iterator[list[tuple[_File, str]]]:
    batch: list[tuple[_File, str]] = []
    size = 0
    for path, run_id in paths:
        try:
            with open_plain(path) as file:
                data = file.read()
        except OSError:
            data = b""
        batch.append((_split(path, data), run_id))
        size += len(data)
        if size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _split(path: Path, data: bytes) -> _File:
    found = _File(path)
    lines = data.split(b"\n")
    others = [
        place for place, line in enumerate(lines) if not line.startswith(_STEP) or not line.endswith(b"}")
    ]
    begin = 0
    for place in others:
        found.add_steps(lines[begin:place])
        _read_other(found, lines[place])
        begin = place + 1
    found.add_steps(lines[begin:])
    return found


def _read_other(found: _File, line: bytes) -> None:
    if not line.strip():
        return
    record = _parse(line)
    kind = record.get("kind") if record else None
    if record is None or not isinstance(kind, str):
        found.lost += 1
    elif kind == "header":
        found.headers.append(record)
    elif kind == "step":  # another program wrote it, with different spacing
        found.add_steps([line.strip()])
    else:
        found.events.append(record)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = from_json(line, allow_inf_nan=False)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _finish(batch: list[tuple[_File, str]]) -> tuple[list[RunLog], pl.DataFrame]:
    """The runs of a batch. A file without steps still gives a run."""
    counts = np.array([len(file.steps) for file, _ in batch])
    table = _read_steps([file for file, _ in batch])
    table = table.with_columns(
        pl.Series("run", np.repeat(np.arange(len(batch), dtype=np.uint32), counts)),
        pl.Series("segment", _segments([file for file, _ in batch])),
    )
    whole = table.filter(
        pl.col("step").is_between(0, LARGEST_COUNT)
        & pl.col("step_time_s").is_finite()
        & pl.col("step_time_s").is_between(0, LONGEST_STEP_S, closed="right")
        & (pl.col("step_time_s") > 0)
    )
    kept = whole.group_by("run").len()
    valid = np.zeros(len(batch), dtype=np.int64)
    valid[kept["run"].to_numpy()] = kept["len"].to_numpy()
    runs = []
    for index, (file, run_id) in enumerate(batch):
        file.lost += int(counts[index] - valid[index])
        runs.append(run_log(str(file.path), run_id, file.headers, file.events, file.lost))
    batches = pl.DataFrame(
        {
            "run": pl.Series(range(len(runs)), dtype=pl.UInt32),
            "global_batch_size": pl.Series([run.global_batch_size for run in runs], dtype=pl.Int64),
        }
    )
    whole = whole.unique(["run", "step"], keep="last", maintain_order=True).sort("run", "step")
    whole = whole.join(batches, on="run", how="left", maintain_order="left")
    return runs, whole.select("run", *(pl.col(name).cast(kind) for name, kind in STEP_SCHEMA.items()))


def _segments(files: Sequence[_File]) -> npt.NDArray[np.int32]:
    pairs = [pair for file in files for pair in file.segments]
    segments, counts = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return np.repeat(segments, counts)


def _read_steps(files: Sequence[_File]) -> pl.DataFrame:
    """One row per line, with null for values that are not numbers."""
    table = _as_columns(line for file in files for line in file.steps)
    if table.height != sum(len(file.steps) for file in files):
        parts = [_as_columns(file.steps) for file in files]
        parts = [
            part if part.height == len(file.steps) else _line_by_line(file.steps)
            for part, file in zip(parts, files, strict=True)
        ]
        table = pl.concat(parts)
    sent = [pl.col("bytes_sent").struct.field(level).alias(f"bytes_{level}") for level in _LEVELS]
    return table.with_columns(
        pl.lit(None, dtype=pl.Float64).alias("samples_per_s"),
        pl.lit(None, dtype=pl.Int64).alias("seq_len"),
        pl.col("model_flops_per_s_per_device").alias("printed_flops_per_s"),
        *sent,
    )


def _as_columns(lines: Iterable[bytes]) -> pl.DataFrame:
    """The columns of the lines; an empty table if any line cannot be read."""
    text = b"\n".join(lines)
    if not text:
        return pl.DataFrame(schema=_SCHEMA)
    try:
        return pl.read_ndjson(text, schema=_SCHEMA, ignore_errors=True)
    except pl.exceptions.PolarsError:
        return pl.DataFrame(schema=_SCHEMA)


def _line_by_line(lines: Sequence[bytes]) -> pl.DataFrame:
    rows = []
    for line in lines:
        record = _parse(line) or {}
        row = {name: number(record.get(name)) for name in _SCHEMA if name != "bytes_sent"}
        sent = record.get("bytes_sent")
        row["bytes_sent"] = (
            {level: number(sent.get(level)) for level in _LEVELS} if isinstance(sent, dict) else None
        )
        row["skipped"] = record.get("skipped") if isinstance(record.get("skipped"), bool) else None
        for name in ("step", "slowest_rank"):
            value = row[name]
            row[name] = int(value) if value is not None and abs(value) < LARGEST_COUNT else None
        rows.append(row)
    return pl.DataFrame(rows, schema=_SCHEMA, strict=False)
