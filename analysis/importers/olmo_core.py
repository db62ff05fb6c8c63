"""Text logs of OLMo-core, and of its predecessor OLMo.

A step is a line with its number and a line for each metric, indented
(src/olmo_core/train/callbacks/console_logger.py and speed_monitor.py at fa6c501)::

    [step=10/1000,epoch=1,eta=2h]
        train/CE loss=8.123
        throughput/device/TPS=7,890
        throughput/device/BPS=0.1204

- ``TPS`` are tokens/s per device: those of one data-parallel rank, divided by the ranks that share its
  batch.
- ``BPS`` are steps per second, so the step time is its inverse; it has four decimals or four digits.
- ``flopsPS`` (since December 2025) are model FLOPs per device: 6 FLOPs a parameter of blocks and output
  layer, and 12 h q t a layer for attention over the whole sequence or window (nn/transformer/model.py,
  nn/attention/__init__.py). Before, only ``MFU`` was printed, from 6 N + 12 l h q t with N without
  embeddings. It is of the peak that the log names, which is an A100's on AMD devices, and FLOP/s are
  derived from both.
- OLMo (olmo/train.py of allenai/OLMo) has the same form and other names, and prints no FLOP/s per device.
- ``GPU active mem`` is the most that tensors held in the step on one rank; ``GPU reserved mem`` the
  allocator's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.values import (
    GIB,
    Lost,
    count,
    decoded,
    grouped,
    number,
    positive,
    put,
    scaled,
    seconds,
)
from frontrunner.analysis.run_log import RunLog

BEGUN = re.compile(rb"\[step=\d+/(?:\d+|\?\?\?),epoch=\d+")
_STEP = re.compile(r"\[step=(\d+)/(\d+|\?\?\?),epoch=\d+(?:,eta=[^\]]*)?\]\s*$")
_METRIC = re.compile(
    rb"(?:^|[\s:>|\])])((?:train|optim|throughput|gpu_memory|system|System)/[\w /()%*.-]+)=(\S+)\s*$"
)
_PEAK = re.compile(rb"[Dd]evice peak (?:FLOPS|Flops/s|FLOPs)?:? ?(\d{9,18})\b")
_DATA = re.compile(rb"Data parallel world size = ([\d,]+)")
_PARAMETERS = re.compile(rb"- ([\d,]+) (total|non-embedding) params")
_BPS = ("throughput/device/BPS", "throughput/device/batches_per_second")
_OLMO = "throughput/device/tokens_per_second"
_COLUMNS = {
    "train/CE loss": ("loss", 1.0),
    "optim/total grad norm": ("gradient_norm", 1.0),
    "optim/LR (group 0)": ("learning_rate", 1.0),
    "optim/LR": ("learning_rate", 1.0),
    "optim/step skipped": ("skipped", 1.0),
    "throughput/device/TPS": ("tokens_per_s_per_device", 1.0),
    _OLMO: ("tokens_per_s_per_device", 1.0),
    "train/CrossEntropyLoss": ("loss", 1.0),
    "optim/total_grad_norm": ("gradient_norm", 1.0),
    "optim/learning_rate_group0": ("learning_rate", 1.0),
    "System/Peak GPU Memory (MB)": ("peak_memory_bytes", 1e6),
    "throughput/device/flopsPS": ("printed_flops_per_s", 1.0),
    "gpu_memory/GPU active mem (GiB)": ("peak_memory_bytes", GIB),
    "system/GPU active mem (GiB)": ("peak_memory_bytes", GIB),
}


@dataclass
class OlmoCore:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    peak: float | None = None
    data: int | None = None
    olmo: bool = False
    parameters: dict[str, int] = field(default_factory=dict)
    _open: Values | None = None

    def line(self, record: bytes) -> None:
        if b"[step=" in record and BEGUN.search(record):
            self._close()
            self._begin(decoded(record))
        elif self._open is not None and b"=" in record and (found := _METRIC.search(record)):
            self._metric(self._open, decoded(found[1]), decoded(found[2]))
        elif b"evice peak" in record and (found := _PEAK.search(record)):
            self.peak = float(found[1])
        elif b"Data parallel world size" in record and (found := _DATA.search(record)):
            self.data = int(grouped(decoded(found[1])))
        elif b" params" in record and (found := _PARAMETERS.search(record)):
            self.parameters[decoded(found[2])] = int(grouped(decoded(found[1])))
        elif b"Training for " in record and b" steps" in record:
            self.reading.start()

    def _begin(self, text: str) -> None:
        found = _STEP.search(text)
        if not found:
            raise Lost
        if found[2] != "???":
            self.reading.planned = count(found[2])
        self._open = {"step": count(found[1])}

    def _metric(self, values: Values, name: str, printed: str) -> None:
        self.olmo |= name == _OLMO
        if name in _BPS:
            put(values, "step_time_s", seconds(1 / positive(scaled(printed))))
        elif name == "throughput/device/MFU" and self.peak and "printed_flops_per_s" not in values:
            values["printed_flops_per_s"] = positive(scaled(printed)) / 100 * self.peak
        elif name in _COLUMNS:
            column, unit = _COLUMNS[name]
            if column == "learning_rate" and column in values:
                return
            if column == "printed_flops_per_s":
                values.pop(column, None)
            value = scaled(printed) if column != "learning_rate" else number(printed)
            put(values, column, None if value is None else value * unit)

    def _close(self) -> None:
        """A step counts if it has a metric; most lines of a run may only tell how far it is."""
        values, self._open = self._open, None
        if values and len(values) > 1:
            self.reading.add(values)

    def finish(self, path: str, run_id: str) -> RunLog:
        self._close()
        facts = {"parameters": self.parameters.get("total")}
        configuration = "OLMo-core does not print its configuration"
        return RunLog(
            id=run_id,
            path=path,
            format="olmo" if self.olmo else "olmo-core",
            layout={"data": self.data} if self.data else {},
            flop_convention="model",
            planned_steps=self.reading.planned,
            current_segment=0,
            not_printed={
                "devices": f"{configuration}; it prints data-parallel ranks only",
                **dict.fromkeys(("model", "global_batch_size", "seq_len"), configuration),
                "printed_flops_per_s_per_device": "the log has neither FLOP/s nor the peak of its MFU",
            },
            facts=facts,
        )
