"""Totals of a run's records: the summary table and the JSON of ``train``."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from frontrunner.configs.units import (
    UNKNOWN,
    bytes_text,
    duration_text,
    flops_text,
    model_flops_text,
    number_text,
    seconds_text,
)
from frontrunner.launcher.display.tables import Table, pairs
from frontrunner.launcher.errors import RunFailed
from frontrunner.run_folder import files
from frontrunner.run_folder.records import Checkpoint, Header, Record, Step, Summary, Validation, Warning
from frontrunner.run_folder.steady import steady_median

_RECENT = 20
_RESULT = (
    "steps",
    "first_validation_loss",
    "last_validation_loss",
    "tokens_per_s_per_device",
    "bytes_per_step",
)


class Totals:
    """Collects records; accessors return None for unknown values."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        self.run_dir = run_dir
        self.steps = steps
        self.header: Header | None = None
        self.summary: Summary | None = None
        self.step_records: list[Step] = []
        self.validations: list[Validation] = []
        self.checkpoints: list[Checkpoint] = []
        self.warnings: list[Warning] = []

    def add(self, record: Record) -> None:
        if record["kind"] == "header":
            self.header = record
        elif record["kind"] == "step":
            self.step_records.append(record)
        elif record["kind"] == "validation":
            self.validations.append(record)
        elif record["kind"] == "checkpoint":
            self.checkpoints.append(record)
        elif record["kind"] == "warning":
            self.warnings.append(record)
        elif record["kind"] == "summary":
            self.summary = record

    @property
    def done(self) -> int:
        """The last step taken, counted from 1; 0 before the first."""
        return int(self.last("step") or 0)

    def last(self, field: str) -> Any:
        return self.step_records[-1].get(field) if self.step_records else None

    def median(self, field: str) -> float | None:
        """The median over the steady steps."""
        return steady_median(self.step_records, field)

    def seconds_left(self) -> float | None:
        recent = [record["step_time_s"] for record in self.step_records[-_RECENT:]]
        return statistics.median(recent) * (self.steps - self.done) if recent else None

    def layout_text(self) -> str | None:
        """One line with the layout, from the header."""
        if self.header is None:
            return None
        layout, sharding = self.header["layout"], self.header["spec"]["layout"]["sharding"]
        packages = layout["devices_per_node"] // layout["devices_per_package"]
        degrees = ", ".join(f"{kind} {layout[kind]}" for kind in ("weights", "gradients", "optimizer"))
        return (
            f"{layout['nodes']} nodes x {packages} packages x {layout['devices_per_package']} devices; "
            f"tensor {layout['tensor']}, pipeline {layout['pipeline']}, data {layout['data']}; "
            f"{sharding['preset'] or 'sharding'} ({degrees}); {self.header['device']}"
        )

    def result(self) -> dict[str, Any]:
        """The object that ``--json`` prints. Raises RunFailed if the run did not finish."""
        if self.summary is None:
            raise RunFailed(f"the run ended without a summary; see {self.run_dir / files.LOGS}")
        return {"run_dir": str(self.run_dir)} | {field: self.summary.get(field) for field in _RESULT}

    def table(self) -> Table:
        return pairs(self._rows(), f"{self.done} of {self.steps} steps")

    def _rows(self) -> list[tuple[str, str]]:
        rows = [("training loss", f"{self._first('loss')} -> {number_text(self.last('loss'), '.4f')}")]
        if self.validations:
            rows.append(("validation loss", self.validation_text()))
        peaks = [record.get("peak_memory_bytes") for record in self.step_records]
        summary: dict[str, Any] = dict(self.summary or {})
        sent: dict[str, float] = summary.get("bytes_per_step") or self.last("bytes_sent") or {}
        model_flops = model_flops_text(self.median("model_flops_per_s_per_device"), self.median("mfu"))
        return [
            *rows,
            ("tokens/s per device", number_text(self.median("tokens_per_s_per_device"), ",.1f")),
            ("model FLOP/s per device", model_flops),
            ("hardware FLOP/s per device", flops_text(self.median("hardware_flops_per_s_per_device"))),
            ("step time (median)", seconds_text(self.median("step_time_s"))),
            ("  forward and backward", seconds_text(self.median("forward_backward_s"))),
            ("  optimizer", seconds_text(self.median("optimizer_s"))),
            ("  exposed communication in both", seconds_text(self.median("communication_exposed_s"))),
            ("peak memory per device", bytes_text(max((peak for peak in peaks if peak), default=None))),
            *((f"bytes sent per rank and step, {level}", bytes_text(sent[level])) for level in sent),
            *((("last checkpoint", self.checkpoint_text()),) if self.checkpoints else ()),
            *((("warnings", str(len(self.warnings))),) if self.warnings else ()),
            ("time", duration_text(summary.get("elapsed_s"))),
            ("run folder", str(self.run_dir)),
        ]

    def _first(self, field: str) -> str:
        first: Any = self.step_records[0] if self.step_records else {}
        return number_text(first.get(field), ".4f")

    def checkpoint_text(self) -> str:
        return f"step {self.checkpoints[-1]['step']}" if self.checkpoints else "none"

    def validation_text(self) -> str:
        """First -> last validation loss, with the loss of a unigram model of the corpus if known."""
        if not self.validations:
            return UNKNOWN
        losses = [number_text(record["loss"], ".4f") for record in self.validations]
        text = " -> ".join([losses[0], *losses[1:][-1:]])
        unigram = self.validations[-1].get("unigram_loss")
        return text if unigram is None else f"{text} (unigram model: {unigram:.4f})"
