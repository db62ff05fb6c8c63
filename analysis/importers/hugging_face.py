"""Logs of the Trainer of Hugging Face transformers, and of libraries on it: what it prints, and
trainer_state.json.

A record (src/transformers/trainer_callback.py: ``ProgressCallback``, ``TrainerState``), after the progress
bar that may be in the same log. Since version 5 the values are strings::

     1%|#         | 10/1000 [00:31<51:00,  3.09s/it]
    {'loss': 2.149, 'grad_norm': 0.1638, 'learning_rate': 0.000199892, 'epoch': 0.01}

- The record does not have its step: that is the last progress bar's. Without one, records are numbered.
- The time per step is the bar's own, a moving average, evaluation and checkpoints included.
- Neither tokens/s, FLOP/s, memory nor sequence length are printed.
- trainer_state.json has the steps, and no times but the mean of the whole run.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from frontrunner.analysis.importers import labels
from frontrunner.analysis.importers.lines import Lines, head
from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.values import (
    Lost,
    count,
    decoded,
    finite,
    grouped,
    number,
    positive,
    seconds,
)
from frontrunner.analysis.run_log import LARGEST_COUNT, RunLog, step_table

STATE = "trainer_state.json"
BEGUN = re.compile(rb"\{(?:'[^{}]*)?'loss': (?=[^{}]*'epoch': )|\{'loss': '?[-\d.naif]")
_RECORD = re.compile(r"\{(?:'[^{}]*)?'loss': [^{}]*\}")
_BEGINNING = re.compile(r"\{(?:'[^{}]*)?'loss': ")
_PAIR = re.compile(r"'([^']+)': (?:'([^']*)'|([^,'}]+))(?:, |\}$)")
_BAR = re.compile(r"^\s*\d+%\|[^|]*\|\s*(\d+)/(\d+) \[[\d:]+<[\d:?]+,\s*([\d.]+)(s/it|it/s)")
_SUMMARY = re.compile(r"'train_steps_per_second': '?([\d.]+)")
_HEADER = re.compile(
    r"(Instantaneous batch size per device|Total train batch size[^=]*|Gradient Accumulation steps"
    r"|Total optimization steps) = ([\d,]+)"
)
_FLAT = re.compile(r'\{[^{}]*"loss":[^{}]*\}')
_WORDS = {"loss": "loss", "grad_norm": "gradient_norm", "learning_rate": "learning_rate"}


@dataclass
class HuggingFace:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    header: dict[str, int] = field(default_factory=dict)
    bar: tuple[int, int, float | None] | None = None
    mean: float | None = None

    def line(self, record: bytes) -> None:
        if b"'loss'" in record and BEGUN.search(record):
            self._records(decoded(record))
        elif b"it/s" in record or b"s/it" in record:
            self._bar(decoded(labels.bare(record)))
        elif b"Running training *" in record:
            self.reading.start()
            self.bar = None
        elif b" = " in record and (found := _HEADER.search(decoded(record))):
            self.header[found[1].split("(")[0].strip()] = int(grouped(found[2]))
        elif b"'train_steps_per_second'" in record and (found := _SUMMARY.search(decoded(record))):
            self.mean = 1 / positive(finite(found[1]))

    def _bar(self, text: str) -> None:
        if found := _BAR.search(text):
            speed = finite(found[3])
            time = (speed if found[4] == "s/it" else 1 / speed) if speed else None
            self.bar = (count(found[1]), count(found[2]), time)

    def _records(self, text: str) -> None:
        self._bar(text)
        whole = _RECORD.findall(text)
        for each in whole:
            values = _values({name: quoted or plain for name, quoted, plain in _PAIR.findall(each)})
            self._step(values)
        if len(whole) != len(_BEGINNING.findall(text)):
            raise Lost

    def _step(self, values: Values) -> None:
        if self.bar:
            values["step"] = float(self.bar[0])
            self.reading.planned = self.bar[1]
            if self.bar[2]:
                values["step_time_s"] = seconds(self.bar[2])
        else:
            values["step"] = self.reading.steps + 1
        self.reading.add(values)

    def finish(self, path: str, run_id: str) -> RunLog:
        micro = self.header.get("Instantaneous batch size per device")
        batch = self.header.get("Total train batch size")
        steps = self.header.get("Gradient Accumulation steps")
        data = (
            batch // (micro * steps) if batch and micro and steps and batch % (micro * steps) == 0 else None
        )
        layout = {"data": data, "micro_batch_size": micro, "grad_accum_steps": steps} if data else {}
        planned = self.header.get("Total optimization steps", self.reading.planned)
        return _run(path, run_id, layout, batch, planned, self.mean, "the log has no progress bar")


def _run(
    path: str,
    run_id: str,
    layout: dict[str, Any],
    batch: int | None,
    planned: int | None,
    mean: float | None,
    why: str,
) -> RunLog:
    told = "" if mean is None else f"; over the whole run, all else included, it is {mean:.4g} s"
    unsaid = "the Trainer does not print it"
    return RunLog(
        id=run_id,
        path=path,
        format="hugging-face",
        layout=layout,
        global_batch_size=batch,
        planned_steps=planned,
        not_printed={
            "step_time_s": why + told,
            "tokens_per_s_per_device": "the Trainer prints neither tokens/s nor a sequence length",
            "global_batch_size": "the Trainer only prints it at log level info",
            **dict.fromkeys(("model", "devices", "seq_len", "precision", "memory_bytes"), unsaid),
        },
    )


def _values(printed: dict[str, str]) -> Values:
    values: Values = {column: number(printed[name]) for name, column in _WORDS.items() if name in printed}
    if "loss" not in values:
        raise Lost
    return values


def is_state(path: Path) -> bool:
    """Whether a file is a ``trainer_state.json``. Raises OSError if it cannot be opened."""
    start = head(path).lstrip()
    return start.startswith(b"{") and b'"log_history"' in start


def read_state(path: Path, run_id: str) -> tuple[RunLog, pl.DataFrame] | str:
    """The run of a ``trainer_state.json``, complete or cut, or why there is none."""
    text = "\n".join(decoded(line) for line in Lines(path))
    reading = Reading()
    for found in _FLAT.findall(text):
        try:
            reading.add(_state_step(json.loads(found)))
        except (Lost, ValueError, RecursionError):
            reading.lost += 1
    if not text.rstrip().endswith("}"):
        reading.lost += 1
    if not reading.steps:
        return "holds no record of a training step"
    planned = re.search(r'"max_steps": (\d{1,15})\b', text)
    speed = re.search(r'"train_steps_per_second": ([\d.]+)', text)
    mean = 1 / float(speed[1]) if speed and re.fullmatch(r"\d+\.?\d*", speed[1]) and float(speed[1]) else None
    run = _run(
        str(path),
        run_id,
        {},
        None,
        int(planned[1]) if planned else None,
        mean,
        f"{STATE} has no time per step",
    )
    run.lost_lines = reading.lost
    return run, step_table(reading.columns)


def _state_step(record: dict[str, Any]) -> Values:
    place = record.get("step")
    if not isinstance(place, int) or not 0 <= place <= LARGEST_COUNT:
        raise Lost
    return _values({name: str(value) for name, value in record.items()}) | {"step": place}
