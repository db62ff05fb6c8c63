"""Our own ``records.jsonl``: many files at once, whose step records are read as columns.

The lines of all files of a batch go through one reader of JSON lines; where a line of the batch is damaged,
that file is read line by line. Records of a continued run replace earlier ones of the same steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from frontrunner.analysis.run_log import (
    LARGEST_COUNT,
    LONGEST_STEP_S,
    STEP_SCHEMA,
    RunLog,
    StageMemory,
    current_segment,
)
from frontrunner.configs.schema import ModelSpec

#: Bytes of records that are read at once: large enough to keep the cores busy, small beside the memory.
BATCH_BYTES = 48 << 20
_STEP = b'{"kind": "step"'
_LEVELS = ("package", "node", "network")
_FIELDS: dict[str, Any] = {
    name: kind
    for name, kind in STEP_SCHEMA.items()
    if name not in ("segment", "global_batch_size", "samples_per_s", "printed_flops_per_s")
    and not name.startswith("bytes_")
}
_SCHEMA = _FIELDS | {
    "model_flops_per_s_per_device": pl.Float64(),
    "bytes_sent": pl.Struct({level: pl.Float64() for level in _LEVELS}),
}


@dataclass
class _File:
    """The lines of one file: those of steps as they are, the others read."""

    path: Path
    steps: list[bytes] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    headers: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0


def read(paths: Sequence[tuple[Path, str]]) -> Iterator[tuple[list[RunLog], pl.DataFrame]]:
    """Runs of files with their names, batch by batch; ``run`` counts the runs of the batch.

    A file that cannot be read is a run without steps.
    """
    batch: list[tuple[_File, str]] = []
    size = 0
    for path, run_id in paths:
        try:
            data = path.read_bytes()
        except OSError:
            data = b""
        batch.append((_split(path, data), run_id))
        size += len(data)
        if size > BATCH_BYTES:
            yield _finish(batch)
            batch, size = [], 0
    if batch:
        yield _finish(batch)


def _split(path: Path, data: bytes) -> _File:
    found = _File(path)
    for line in data.split(b"\n"):
        if line.startswith(_STEP) and line.endswith(b"}"):
            found.steps.append(line)
            found.segments.append(max(len(found.headers) - 1, 0))
        elif line.strip():
            _read_other(found, line)
    return found


def _read_other(found: _File, line: bytes) -> None:
    record = _parse(line)
    kind = record.get("kind") if record else None
    if record is None or not isinstance(kind, str):
        found.lost += 1
    elif kind == "header":
        found.headers.append(record)
    elif kind == "step":  # written by another program, with other blanks
        found.steps.append(line.strip())
        found.segments.append(max(len(found.headers) - 1, 0))
    else:
        found.events.append(record)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _finish(batch: list[tuple[_File, str]]) -> tuple[list[RunLog], pl.DataFrame]:
    """The runs of a batch; a file without any step is a run without steps."""
    counts = np.array([len(file.steps) for file, _ in batch])
    table = _read_steps([file for file, _ in batch])
    table = table.with_columns(
        pl.Series("run", np.repeat(np.arange(len(batch), dtype=np.uint32), counts)),
        pl.Series("segment", [segment for file, _ in batch for segment in file.segments], dtype=pl.Int32),
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
        runs.append(_run(file, run_id))
    batches = pl.DataFrame(
        {
            "run": pl.Series(range(len(runs)), dtype=pl.UInt32),
            "global_batch_size": pl.Series([run.global_batch_size for run in runs], dtype=pl.Int64),
        }
    )
    whole = whole.unique(["run", "step"], keep="last", maintain_order=True).sort("run", "step")
    whole = whole.join(batches, on="run", how="left", maintain_order="left")
    return runs, whole.select("run", *(pl.col(name).cast(kind) for name, kind in STEP_SCHEMA.items()))


def _read_steps(files: Sequence[_File]) -> pl.DataFrame:
    """A row a line, with nulls for what is no number."""
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
        pl.col("model_flops_per_s_per_device").alias("printed_flops_per_s"),
        *sent,
    )


def _as_columns(lines: Iterable[bytes]) -> pl.DataFrame:
    """An empty table where a line cannot be read."""
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
        row = {name: _number(record.get(name)) for name in _SCHEMA if name != "bytes_sent"}
        sent = record.get("bytes_sent")
        row["bytes_sent"] = (
            {level: _number(sent.get(level)) for level in _LEVELS} if isinstance(sent, dict) else None
        )
        row["skipped"] = record.get("skipped") if isinstance(record.get("skipped"), bool) else None
        for name in ("step", "slowest_rank"):
            value = row[name]
            row[name] = int(value) if value is not None and abs(value) < LARGEST_COUNT else None
        rows.append(row)
    return pl.DataFrame(rows, schema=_SCHEMA, strict=False)


def _number(value: object) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _run(file: _File, run_id: str) -> RunLog:
    """The facts of the last header."""
    header = file.headers[-1] if file.headers else {}
    spec = _mapping(header.get("spec"))
    layout, training = _mapping(spec.get("layout")), _mapping(spec.get("training"))
    cut, machine = _mapping(header.get("layout")), _mapping(spec.get("machine"))
    described = {key: cut.get(key) for key in ("tensor", "pipeline", "data", "virtual_stages")}
    sharding = _mapping(layout.get("sharding"))
    keys = ("micro_batch_size", "recompute", "sequence_parallel")
    described |= {key: layout.get(key) for key in keys}
    described["grad_accum_steps"] = _accumulation(training, layout, cut)
    described["sharding"] = sharding.get("preset") or "/".join(
        str(sharding.get(kind)) for kind in ("weights", "gradients", "optimizer")
    )
    described |= {key: cut.get(key) for key in ("weights", "gradients", "optimizer") if key in cut}
    nodes = _count(spec.get("nodes"))
    a_node = _count(cut.get("devices_per_node"))
    return RunLog(
        id=run_id,
        path=str(file.path),
        format="records",
        devices=nodes * a_node if nodes and a_node else None,
        nodes=nodes,
        machine=machine.get("name") if isinstance(machine.get("name"), str) else None,
        machine_reason="the run's own header" if machine else None,
        model=_model(spec.get("model")),
        layout={key: value for key, value in described.items() if isinstance(value, int | str)},
        global_batch_size=_count(training.get("global_batch_size")),
        seq_len=_count(training.get("seq_len")),
        precision=training.get("precision") if isinstance(training.get("precision"), str) else None,
        flop_convention="model",
        planned_steps=_count(training.get("steps")),
        current_segment=current_segment([_cut(each) for each in file.headers]),
        lost_lines=file.lost,
        events=[str(event.get("message")) for event in file.events if event["kind"] == "warning"],
        facts={
            "validation": [
                (event["step"], event["loss"])
                for event in file.events
                if event["kind"] == "validation" and _count(event.get("step")) and _number(event.get("loss"))
            ],
            "engine": spec.get("engine"),
            "starts": len(file.headers),
        },
        spec=spec or None,
    )


def _cut(header: dict[str, Any]) -> object:
    """What must be the same for steps to be comparable: where a run is continued, it may change."""
    spec = _mapping(header.get("spec"))
    return [spec.get(key) for key in ("model", "machine", "nodes", "engine", "layout")], _mapping(
        spec.get("training")
    ).get("global_batch_size")


def _accumulation(training: dict[str, Any], layout: dict[str, Any], cut: dict[str, Any]) -> int | None:
    batch, micro = _count(training.get("global_batch_size")), _count(layout.get("micro_batch_size"))
    data = _count(cut.get("data"))
    return batch // (micro * data) if batch and micro and data else None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < LARGEST_COUNT
        else None
    )


_models: dict[str, ModelSpec | None] = {}


def _model(given: object) -> ModelSpec | None:
    """The header's model; None where it is none. Runs of a study share one."""
    key = json.dumps(given, sort_keys=True)
    if key not in _models:
        try:
            _models[key] = ModelSpec.model_validate(given)
        except ValidationError:
            _models[key] = None
    return _models[key]


def memory_of(steps: pl.DataFrame) -> tuple[StageMemory, ...]:
    """The largest peak of any device, which is all that records say: no stage is told apart."""
    peak = steps["peak_memory_bytes"].max()
    return (StageMemory(0, None, float(peak), None),) if isinstance(peak, int | float) and peak > 0 else ()
