"""Text logs of nanotron.

A step (src/nanotron/trainer.py and logging/base.py at 2411b02; ``elapsed_time_per_iteration_ms`` until
March 2025)::

    iteration: 7 / 100 | consumed_tokens: 3.67M | time_per_iteration_ms: 8.79K | tokens_per_sec: 59.6K |
    tokens_per_sec_per_gpu: 7.45K | global_batch_size: 524K | grad_norm: 0.112 | lm_loss: 2.04 | lr: 0.0001 |
    model_tflops_per_gpu: 15.4 | eta: 1:02:03

- All numbers are rounded to three significant digits, with a suffix for powers of a thousand.
- ``tokens_per_sec_per_gpu`` are per device, over all ranks of the run.
- ``model_tflops_per_gpu`` are model FLOPs: three times a forward pass of a Llama of the same shape, with
  attention over the whole sequence and the output layer, without the embedding (``get_flops`` of
  models/llama.py). What is printed as ``hardware_tflops_per_gpu`` is the same figure.
- ``global_batch_size`` counts tokens since March 2025 and sequences before. The batch is read from the line
  before the first step, which has the whole numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydantic import ValidationError

from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.unsupported import Unsupported
from frontrunner.analysis.importers.values import Lost, count, decoded, finite, positive, put, scaled, seconds
from frontrunner.analysis.run_log import RunLog, current_segment
from frontrunner.configs.schema import ModelSpec

BEGUN = re.compile(rb"\biteration: \d+ / \d+ \| ")
_STEP = re.compile(r"\biteration: (\d+) / (\d+) \| ")
_START = re.compile(r"\b(mbs|grad_accum|sequence_length|global_batch_size|train_steps): (\d+)(?= \||$)")
_MEMORY = re.compile(rb"Peak allocated:? ([\d.]+)MiB")
#: One ``key=value`` of the configuration, which is printed as Python dataclasses before the first step.
_SETTING = re.compile(r"\b([a-z]\w*)=('?[\w.-]+'?|<[^<>]*>)(?=[,)]|$)", re.ASCII)
_DEGREES = ("tp", "pp", "dp", "context_parallel_size")
_COLUMNS = {
    "time_per_iteration_ms": ("step_time_s", 1e-3),
    "elapsed_time_per_iteration_ms": ("step_time_s", 1e-3),
    "tokens_per_sec_per_gpu": ("tokens_per_s_per_device", 1.0),
    "lm_loss": ("loss", 1.0),
    "lr": ("learning_rate", 1.0),
    "grad_norm": ("gradient_norm", 1.0),
    "model_tflops_per_gpu": ("printed_flops_per_s", 1e12),
}


@dataclass
class Nanotron:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    settings: dict[str, str] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    """The sizes on the line before the first step."""
    cuts: list[object] = field(default_factory=list)
    names: frozenset[str] = frozenset()
    """Fields that every step of this log has."""
    in_settings: bool = True
    peak: float = 0.0

    def line(self, record: bytes) -> None:
        if b"iteration: " in record and BEGUN.search(record):
            self._steps(decoded(record))
        elif b"mbs: " in record and b"train_steps: " in record:
            self._start(decoded(record))
        elif b"Peak allocated" in record and (found := _MEMORY.search(record)):
            self.peak = max(self.peak, positive(finite(decoded(found[1])), 1e9) * 2**20)
        elif b"Config" in record:
            self.in_settings = True
        if self.in_settings and b"=" in record:
            self.settings.update(_SETTING.findall(decoded(record)))

    def _start(self, text: str) -> None:
        self.reading.start()
        self.in_settings = False
        self.names = frozenset()
        self.begun = {name: count(printed) for name, printed in _START.findall(text)}
        self.reading.planned = self.begun.get("train_steps")
        cut = [self._size(name) for name in _DEGREES]
        self.cuts[self.reading.segment :] = [(self.begun, cut)]

    def _steps(self, text: str) -> None:
        self.in_settings = False
        begins = [found.start() for found in _STEP.finditer(text)]
        lost = 0
        for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
            try:
                values, planned, names = step(text[begin:end])
                self.names = self.names or names
                if self.names - names:  # the line was cut behind a whole field
                    raise Lost
            except Lost:
                lost += 1
                continue
            self.reading.add(values)
            self.reading.planned = planned
        if lost:
            self.reading.lost += lost - 1
            raise Lost

    def _size(self, name: str) -> int | None:
        text = self.settings.get(name, "")
        return int(text) if re.fullmatch(r"\d{1,10}", text) and 0 < int(text) < 2**31 else None

    def finish(self, path: str, run_id: str) -> RunLog:
        length = self.begun.get("sequence_length") or self._size("sequence_length")
        micro = self.begun.get("mbs") or self._size("micro_batch_size")
        steps = self.begun.get("grad_accum") or self._size("batch_accumulation_per_replica")
        batch = self.begun.get("global_batch_size")
        cut = [self._size(name) for name in _DEGREES]
        tensor, pipeline, data, context = cut[0], cut[1], cut[2], cut[3] or 1
        if batch is None and micro and steps and data:
            batch = micro * steps * data
        devices = tensor * pipeline * data * context if tensor and pipeline and data else None
        if self.peak:
            self.reading.fill("peak_memory_bytes", self.peak)
        dtype = {"bfloat16": "bfloat16", "float16": "float16", "float32": "float32"}
        layout = {
            "tensor": tensor,
            "pipeline": pipeline,
            **({"context": context} if context > 1 else {}),
            "data": data,
            "micro_batch_size": micro,
            "grad_accum_steps": steps,
            "sequence_parallel": self._sequence_parallel(),
            "recompute": {"True": "full", "False": "none"}.get(self.settings.get("recompute_layer", "")),
            "sharding": f"zero{self.settings['zero_stage']}" if self._known("zero_stage") else None,
        }
        return RunLog(
            id=run_id,
            path=path,
            format="nanotron",
            devices=devices,
            model=self._model(run_id),
            layout=layout if devices else {},
            global_batch_size=batch,
            seq_len=length,
            precision=dtype.get(self.settings.get("dtype", "").removeprefix("torch.")),
            flop_convention="model",
            planned_steps=self.reading.planned,
            current_segment=current_segment(self.cuts[: self.reading.last_segment + 1]),
            unsupported=tuple(self._unsupported()),
            not_printed={
                "model": "the log does not have nanotron's configuration",
                "devices": "the log does not have nanotron's configuration",
            },
        )

    def _known(self, name: str) -> bool:
        return self.settings.get(name, "") in ("0", "1", "2", "3")

    def _sequence_parallel(self) -> bool | None:
        mode = self.settings.get("tp_mode", "")
        return "REDUCE_SCATTER" in mode.upper() if mode else None

    def _unsupported(self) -> list[Unsupported]:
        found = []
        if self._size("num_experts") or self._size("num_local_experts"):
            found.append(Unsupported("model", "a mixture of experts"))
        if self._size("sliding_window_size") or self._size("sliding_window"):
            found.append(Unsupported("attention", "sliding-window attention"))
        return found

    def _model(self, name: str) -> ModelSpec | None:
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
        sizes = [self._size(each) for each in names]
        if not all(sizes) or self._unsupported():
            return None
        layers, width, heads, mlp, vocabulary = sizes
        try:
            return ModelSpec.model_validate(
                {
                    "name": name,
                    "num_layers": layers,
                    "hidden_size": width,
                    "num_heads": heads,
                    "num_kv_heads": self._size("num_key_value_heads") or heads,
                    "ffn_hidden_size": mlp,
                    "vocab_size": vocabulary,
                    "padded_vocab_size": vocabulary,
                    "max_position_embeddings": self._size("max_position_embeddings") or 2048,
                    "position_embedding": "rotary",
                    "normalization": "rmsnorm",
                    "activation": "swiglu",
                    "linear_bias": False,
                    "tie_embeddings": self.settings.get("tie_word_embeddings") == "True",
                }
            )
        except ValidationError:
            return None


def step(text: str) -> tuple[Values, int, frozenset[str]]:
    """The values of one step line from ``iteration:`` on, the planned steps, and the names of its fields."""
    first, *fields = text.split(" | ")
    begun = re.search(r"iteration: (\d+) / (\d+)$", first)
    if not begun:
        raise Lost
    values: Values = {"step": count(begun[1])}
    names: set[str] = set()
    for each in fields:
        name, colon, printed = each.partition(": ")
        if not colon:
            raise Lost
        if name in ("hardware_tflops_per_gpu", "eta", *_COLUMNS):
            names.add(name)
        if name in _COLUMNS:
            column, unit = _COLUMNS[name]
            value = scaled(printed.strip())
            put(values, column, None if value is None else value * unit)
    seconds(values.get("step_time_s"))
    for column in ("tokens_per_s_per_device", "printed_flops_per_s"):
        positive(values.get(column), 1e18)
    return values, count(begun[2]), frozenset(names)
