"""Text logs of torchtitan, also where Primus runs it.

A step (torchtitan/components/metrics.py at b5bcd76; ``wps`` until August 2024, ``grad_norm`` since June
2025, ``tflops`` since February 2025, ``mfu: N/A`` with 8-bit products since February 2026)::

    step: 10  loss:  8.12345  grad_norm:  1.2345  memory: 34.56GiB(43.20%)
    tps: 7,890  tflops: 45.67  mfu: 14.60%

- ``tps`` are tokens/s per device: those of one data-parallel rank, divided by its tensor-, context- and
  pipeline-parallel ranks. It is the mean since the last line (``metrics.log_freq`` steps) and rounded to
  whole tokens. The step time follows from it where the log says devices, batch and sequence length.
- ``tflops`` are model FLOPs: 6 N + 12 l h q t with attention over the whole sequence (6 l h (q + v) t since
  October 2025, which is the same for equal heads). N leaves out the input embedding since April 2024; since
  May 2026 a tied embedding counts (torchtitan/models/utils.py). ``mfu`` is of the peak that the log names;
  the peak of a device unknown to torchtitan is that of an A100.
- ``memory`` is the most that the allocator reserved since the last line, on the rank that prints.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from frontrunner.analysis.importers import labels
from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.torchtitan_config import Config
from frontrunner.analysis.importers.unsupported import Unsupported
from frontrunner.analysis.importers.values import (
    GIB,
    Lost,
    count,
    decoded,
    finite,
    grouped,
    number,
    positive,
    put,
)
from frontrunner.analysis.run_log import RunLog, current_segment

#: Where a step begins; validation has its own line.
BEGUN = re.compile(rb"(?<!validate )\bstep:\s+\d+\s+loss:")
_BEGUN = re.compile(BEGUN.pattern.decode())
_FIELD = re.compile(r"(\w+):\s+(\S+)")
_MEMORY = re.compile(r"([\d.]+)GiB\([\d.]+%\)")
_SHARE = re.compile(r"([\d.]+)%")
_MESH = re.compile(rb"Building \d+-D device mesh with (\[[^\]]*\]), (\[[\d, ]*\])")
_DEGREES = re.compile(rb"Building device mesh with parallelism: ([\w= ,]+)")
_BATCH = re.compile(
    rb"with local batch size (\d+), global batch size (\d+), (?:gradient accumulation steps \d+, )?"
    rb"sequence length (\d+), total steps (\d+)"
)
_TOKENS = re.compile(
    rb"with (\d+) tokens per DP rank, (\d+) tokens per train step, gradient accumulation steps (\d+), "
    rb"maximum context length (\d+), total steps (\d+)"
)
_PEAK = re.compile(rb"Peak FLOPS used for computing MFU: ([\d.]+e[+-]?\d+)")
_CONFIG = re.compile(rb"Running with (?:args|configs): (\{.*)")
_MODEL = re.compile(rb"Building (\w+) (\S+?)\s?with (\w*[({].*)")
_SPARSE = re.compile(rb"Total parameter count: dense [\d,]+, sparse ([\d,]+)")
_APPLIED = re.compile(
    rb"Applied (?:(full|selective|memory_budget) activation checkpointing|(FSDP|HSDP|DDP)\b)"
)
_LONGEST_CONFIG = 20_000


@dataclass
class Torchtitan:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    config: Config = field(default_factory=Config)
    meshes: list[dict[str, int]] = field(default_factory=list)
    tokens_per_step: int | None = None
    peak: float | None = None
    primus: bool = False
    recompute: str | None = None
    sharding: str | None = None
    sparse: str | None = None
    _open: list[str] | None = None
    _into: str = ""
    _depth: int = 0

    def line(self, record: bytes) -> None:
        if b"loss:" in record and BEGUN.search(record):
            self._open = None
            self._steps(decoded(record))
        elif self._open is not None:
            self._continue(labels.bare(record))
        else:
            self._other(record)

    def _steps(self, text: str) -> None:
        """Several ranks may write one line: each whole step counts."""
        begins = [found.start() for found in _BEGUN.finditer(text)]
        lost = 0
        for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
            try:
                self.reading.add(step(text[begin:end], self.peak))
            except Lost:
                lost += 1
        if lost:
            self.reading.lost += lost - 1
            raise Lost

    def _other(self, record: bytes) -> None:
        if b"Running with" in record and (found := _CONFIG.search(record)):
            self._begin("config", decoded(found[1]))
        elif b"Building " in record:
            self._building(record)
        elif b"total steps" in record:
            self._batch(record)
        elif b"Peak FLOPS" in record and (found := _PEAK.search(record)):
            self.peak = number(decoded(found[1]))
        elif b"Applied " in record and (found := _APPLIED.search(record)):
            self.recompute = decoded(found[1]) if found[1] else self.recompute
            self.sharding = decoded(found[2]).lower() if found[2] else self.sharding
        elif b"Total parameter count" in record and (found := _SPARSE.search(record)):
            self.sparse = decoded(found[1]) if found[1].strip(b"0,") else None
        elif b"rimus" in record:
            self.primus = True

    def _building(self, record: bytes) -> None:
        if found := _MESH.search(record):
            names, sizes = (_literal(decoded(found[group])) for group in (1, 2))
            if isinstance(names, list) and isinstance(sizes, list) and len(names) == len(sizes):
                self._mesh({str(name): int(size) for name, size in zip(names, sizes, strict=True)})
        elif found := _DEGREES.search(record):
            self._mesh(
                {name: int(size) for name, size in re.findall(r"(\w+)=(\d{1,7})\b", decoded(found[1]))}
            )
        elif found := _MODEL.search(record):
            self.config.model_name = decoded(found[1])
            self._begin("model", decoded(found[3]))

    def _mesh(self, sizes: dict[str, int]) -> None:
        if all(0 < size < 10**7 for size in sizes.values()):
            if self.reading.steps > self.reading.started_at:
                self.reading.start()
            self.meshes[self.reading.segment :] = [sizes]

    def _batch(self, record: bytes) -> None:
        if found := _BATCH.search(record):
            local, whole, length, steps = (count(decoded(each)) for each in found.groups())
            self.config.batch = (local, whole, length)
            self.tokens_per_step = whole * length
        elif found := _TOKENS.search(record):
            _, tokens, _, length, steps = (count(decoded(each)) for each in found.groups())
            self.config.batch = (None, tokens // length if length and tokens % length == 0 else None, length)
            self.tokens_per_step = tokens
        else:
            return
        self.reading.planned = steps

    def _begin(self, into: str, text: str) -> None:
        self._into, self._open, self._depth = into, [], 0
        self._continue(text.encode())

    def _continue(self, record: bytes) -> None:
        """Collect a value that may go over several lines, until its brackets are closed."""
        if self._open is None:
            return
        self._open.append(decoded(record))
        self._depth += sum(map(record.count, (b"{", b"("))) - sum(map(record.count, (b"}", b")")))
        if self._depth <= 0:
            whole, self._open = "\n".join(self._open), None
            if self._into == "config":
                self.config.job = _literal(whole)
            else:
                self.config.model = _arguments(whole)
        elif len(self._open) > _LONGEST_CONFIG:
            self._open = None

    def finish(self, path: str, run_id: str) -> RunLog:
        meshes = self.meshes[: self.reading.last_segment + 1]
        mesh = meshes[-1] if meshes else None
        devices = (
            math.prod(size for name, size in mesh.items() if name not in ("ep", "etp"))
            if mesh is not None
            else None
        )
        self.reading.derive_step_times(self.tokens_per_step, devices)
        _, batch, length = self.config.batch
        unsupported = list(self.config.unsupported())
        if self.sparse:
            unsupported.append(Unsupported("model", f"{self.sparse} sparse parameters: a mixture of experts"))
        return RunLog(
            id=run_id,
            path=path,
            format="torchtitan",
            devices=devices,
            model=self.config.spec(run_id),
            layout=self.config.layout(mesh, self.recompute, self.sharding),
            global_batch_size=batch,
            seq_len=length,
            precision=self.config.precision(),
            flop_convention="model" if "printed_flops_per_s" in self.reading.columns else None,
            planned_steps=self.reading.planned,
            current_segment=current_segment(meshes),
            unsupported=tuple(unsupported),
            not_printed=self._not_printed(),
            facts={"log_interval": self.config.log_interval(), "under": "primus" if self.primus else None},
            settings=self.config.job if isinstance(self.config.job, dict) else {},
        )

    def _not_printed(self) -> dict[str, str]:
        return {
            "step_time_s": "torchtitan prints tokens/s; the log lacks its devices, batch or sequence length",
            "model": "the log does not print the model's shape in a form that is read here",
            "printed_flops_per_s_per_device": "the log has neither FLOP/s nor the peak of its MFU",
        }


def step(text: str, peak: float | None = None) -> Values:
    """The values of one step line from ``step:`` on. ``peak``: FLOP/s that the printed MFU is a share of."""
    values: Values = {}
    share: str | None = None
    for name, printed in _FIELD.findall(text):
        if name in _COLUMNS:
            column, parse = _COLUMNS[name]
            put(values, column, parse(printed))
        elif name == "mfu":
            share = printed
    found = _SHARE.fullmatch(share or "")
    if (share != "N/A" and not found) or "tokens_per_s_per_device" not in values:
        raise Lost
    if found and peak and "printed_flops_per_s" not in values:
        values["printed_flops_per_s"] = positive(finite(found[1]) / 100 * peak, 1e18)
    return values


def _memory(printed: str) -> float:
    found = _MEMORY.fullmatch(printed)
    if not found:
        raise Lost
    return finite(found[1]) * GIB


#: Column of each field, and how its value is read.
_COLUMNS: dict[str, tuple[str, Callable[[str], float | None]]] = {
    "step": ("step", count),
    "loss": ("loss", number),
    "grad_norm": ("gradient_norm", number),
    "lr": ("learning_rate", number),
    "memory": ("peak_memory_bytes", _memory),
    "tps": ("tokens_per_s_per_device", lambda printed: grouped(printed) or None),
    "wps": ("tokens_per_s_per_device", lambda printed: grouped(printed) or None),
    "tflops": ("printed_flops_per_s", lambda printed: grouped(printed) * 1e12),
}


def _literal(text: str) -> Any:
    """A value as Python or JSON prints it; None if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _arguments(text: str) -> Any:
    """The arguments of ``Name(key=value, ...)`` that are literals, or a JSON object."""
    if text.startswith("{"):
        return _literal(text)
    try:
        called = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    found: dict[str, Any] = {}
    for each in called.keywords if isinstance(called, ast.Call) else ():
        if each.arg and isinstance(each.value, ast.Constant):
            found[each.arg] = each.value.value
    return found
