"""Text logs of NVIDIA NeMo: the lines of NeMo 2 (nemo/lightning/pytorch/callbacks/progress_printer.py at
8cfedd7) and the progress bar of NeMo 1 and 2 (progress_bar.py)::

    Training epoch 0, iteration 45/99 | lr: 6.897e-06 | global_batch_size: 128 | global_step: 45 |
    reduced_train_loss: 11.96 | train_step_timing in s: 6.08 | TFLOPS_per_GPU: 865.7 | consumed_samples: 5888
    Epoch 0: :  47%|####7     | 7/15 [06:19<07:13, reduced_train_loss=11.50, global_step=5.000,
    consumed_samples=12288.0, train_step_timing in s=49.50]

- Iterations count from 0 in the lines; a step here is one more, as the progress bar and all other trainers
  count.
- Numbers have three or four digits and are means over the steps between two lines.
- ``train_step_timing in s`` is the time of a whole step, with all its micro-batches.
- ``TFLOPS_per_GPU`` are model FLOPs with half of attention, over all devices, by a formula for each family
  of models with that family's own vocabulary (nemo/utils/flops_formulas.py: ``causal_self_attn``).
- ``tokens_per_sec_per_gpu``, where a recipe adds it, are tokens/s per device.
- ``max_memory_allocated`` is the most that tensors held, in bytes, on the rank that prints.
- Neither model, layout nor sequence length are printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.values import Lost, count, decoded, finite, number, positive, put, seconds
from frontrunner.analysis.run_log import RunLog

BEGUN = re.compile(
    rb"\bTraining epoch \d+, iteration \d+/\d+\b"
    rb"|\bEpoch \d+: [^\r]*?\b\d+/\d+ \[[^\r]*?\b(?:reduced_train_loss|loss)="
)
_LINE = re.compile(r"\bTraining epoch \d+, iteration (\d+)/(\d+)(?= \||\s*$)")
_BAR = re.compile(r"\bEpoch \d+: .*?\b(\d+)/(\d+) \[[\d:?]+<[^,\]]*(.*)\]")
_FIELD = re.compile(r"^([\w./() ]+?): (\S+)$")
_PAIR = re.compile(r"^([\w./() ]+?)=(.*)$")
_DEVICES = re.compile(rb"All distributed processes registered\. Starting with (\d+) processes")
_COLUMNS = {
    "reduced_train_loss": ("loss", 1.0),
    "loss": ("loss", 1.0),
    "lr": ("learning_rate", 1.0),
    "grad_norm": ("gradient_norm", 1.0),
    "gradient_norm": ("gradient_norm", 1.0),
    "train_step_timing in s": ("step_time_s", 1.0),
    "TFLOPS_per_GPU": ("printed_flops_per_s", 1e12),
    "tokens_per_sec_per_gpu": ("tokens_per_s_per_device", 1.0),
    "max_memory_allocated": ("peak_memory_bytes", 1.0),
    "global_batch_size": ("global_batch_size", 1.0),
}


@dataclass
class Nemo:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    devices: int | None = None
    names: set[str] = field(default_factory=set)
    """Fields of the lines since the start."""

    def line(self, record: bytes) -> None:
        if (b"Training epoch" in record or b"Epoch " in record) and BEGUN.search(record):
            self._steps(decoded(record))
        elif b"distributed processes registered" in record and (found := _DEVICES.search(record)):
            self.reading.start()
            self.names = set()
            self.devices = count(decoded(found[1])) or None

    def _steps(self, text: str) -> None:
        begins = [found.start() for found in re.finditer(r"\bTraining epoch \d+, iteration", text)] or [0]
        lost = 0
        for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
            try:
                values, planned, names = step(text[begin:end])
                if self.names - names:  # the line was cut behind a whole field
                    raise Lost
            except Lost:
                lost += 1
                continue
            self.names |= {name for name in names if not name.startswith("val_")}
            if len(values) > 1:
                self.reading.add(values)
            self.reading.planned = planned
        if lost:
            self.reading.lost += lost - 1
            raise Lost

    def finish(self, path: str, run_id: str) -> RunLog:
        batches = [value for value in self.reading.columns.get("global_batch_size", ()) if value]
        configuration = "NeMo does not print its configuration in its log"
        return RunLog(
            id=run_id,
            path=path,
            format="nemo",
            devices=self.devices,
            global_batch_size=int(batches[-1]) if batches else None,
            flop_convention="model, half of attention",
            planned_steps=self.reading.planned,
            not_printed={
                **dict.fromkeys(
                    ("model", "seq_len", "precision", "devices", "global_batch_size"), configuration
                ),
                "tokens_per_s_per_device": "NeMo prints no sequence length",
                "step_time_s": "the log has no train_step_timing: add NeMo's TimingCallback",
            },
        )


def step(text: str) -> tuple[Values, int, set[str]]:
    """The values of a step, the planned steps, and the names of its fields."""
    values: Values = {}
    if begun := _LINE.search(text):
        values["step"], planned = count(begun[1]) + 1, count(begun[2]) + 1
        parts = text[begun.end() :].strip().strip("|").split(" | ")
        pairs = [_FIELD.match(part.strip()) for part in parts if part.strip()]
    elif begun := _BAR.search(text):
        values["step"], planned = count(begun[1]), count(begun[2])
        pairs = [_PAIR.match(part.strip()) for part in begun[3].split(",") if "=" in part]
    else:
        raise Lost
    names = set()
    for pair in pairs:
        if not pair:
            raise Lost
        _keep(values, pair[1], pair[2])
        names.add(pair[1])
    return values, planned, names


def _keep(values: Values, name: str, printed: str) -> None:
    if name not in _COLUMNS or not printed:
        return
    column, unit = _COLUMNS[name]
    if column == "loss" and column in values:  # a bar of NeMo 1 has a smoothed loss, and the step's own
        values[column] = number(printed) if name == "reduced_train_loss" else values[column]
    elif column in ("loss", "learning_rate", "gradient_norm"):
        put(values, column, number(printed))
    elif column == "step_time_s":
        put(values, column, seconds(finite(printed)))
    else:
        put(values, column, positive(finite(printed), 1e18) * unit)
