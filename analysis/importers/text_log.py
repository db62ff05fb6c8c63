"""Reads a text log of any trainer: what its importer keeps while it goes from line to line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from frontrunner.analysis.importers import labels
from frontrunner.analysis.importers.lines import Lines
from frontrunner.analysis.importers.values import Lost
from frontrunner.analysis.run_log import RunLog, step_table

Values = dict[str, float | None]


@dataclass
class Reading:
    """What has been read so far: steps by column (see ``STEP_SCHEMA``), starts of the run, lost lines."""

    columns: dict[str, list[Any]] = field(default_factory=dict)
    segment: int = 0
    started_at: int = 0
    lost: int = 0
    planned: int | None = None

    @property
    def steps(self) -> int:
        return len(self.columns.get("step", ()))

    @property
    def last_segment(self) -> int:
        """The last start that has steps."""
        return int(self.columns["segment"][-1]) if self.steps else 0

    def add(self, values: Values) -> None:
        before = self.steps
        row: dict[str, Any] = values | {"segment": self.segment}
        for name in row.keys() - self.columns.keys():
            self.columns[name] = [None] * before
        for name, column in self.columns.items():
            column.append(row.get(name))

    def start(self) -> None:
        """The trainer starts here. If steps came before, it was started again and wrote to the same file."""
        if self.steps > self.started_at:
            self.segment += 1
            self.started_at = self.steps

    def fill(self, name: str, value: float | None) -> None:
        """Give a column that the steps do not print the same value everywhere."""
        if value is not None and name not in self.columns:
            self.columns[name] = [value] * self.steps

    def derive_step_times(self, tokens_per_step: float | None, devices: int | None) -> None:
        """Seconds from tokens/s per device, where tokens per step and devices are known."""
        speeds = self.columns.get("tokens_per_s_per_device")
        if tokens_per_step and devices and speeds and "step_time_s" not in self.columns:
            self.columns["step_time_s"] = [
                tokens_per_step / (speed * devices) if speed else None for speed in speeds
            ]


class Importer(Protocol):
    """Reads one format. ``line`` takes one record without escape sequences and raises ``Lost`` for one that
    looks like a step and cannot be read; ``finish`` is called once at the end."""

    reading: Reading

    def line(self, record: bytes) -> None: ...

    def finish(self, path: str, run_id: str) -> RunLog: ...


def read(path: Path, run_id: str, importer: Importer) -> tuple[RunLog, pl.DataFrame] | str:
    """The run of a log, or why there is none. Raises OSError if it cannot be opened."""
    source, reading = Lines(path), importer.reading
    for line in source:
        for record in labels.records(line):
            try:
                importer.line(record)
            except Lost:
                reading.lost += 1
    run = importer.finish(str(path), run_id)
    if not reading.steps and reading.lost:
        return f"{reading.lost} lines look like training steps or their memory, but none can be read"
    if not reading.steps:
        return "holds no line of a training step"
    run.lost_lines = reading.lost + source.torn
    return run, step_table(reading.columns)
