"""Text logs of MosaicML's Composer, which LLM Foundry trains with.

A step is a line with its number and a line for each metric, indented (composer/loggers/console_logger.py
and callbacks/speed_monitor.py at 6405188)::

    [batch=10/1000]:
         Train time/batch: 9
         Train loss/train/total: 8.4213
         Train throughput/device/tokens_per_sec: 1255.1776

- All numbers have four decimals, so small learning rates are printed as 0.0000 and are not known then.
- The speeds are means over a window of batches (``speed_monitor.window_size``) without evaluation. They are
  printed once it is full. ``device`` means divided by all devices of the run.
- The step time is the sequences of a batch divided by ``samples_per_sec``, or the inverse of
  ``batches_per_sec``.
- ``throughput/device/flops_per_sec`` are model FLOPs for MPT: 3 (2 N + 4 l d s) a token, with attention
  over the whole sequence and all N parameters; MPT ties its embeddings, so that N counts the output layer
  once (llmfoundry/models/mpt/modeling_mpt.py at 8c8dd48). Padding counts as tokens.
- ``memory/peak_allocated_mem`` is in 10^9 bytes, on the first rank.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from frontrunner.analysis.importers.text_log import Reading, Values
from frontrunner.analysis.importers.unsupported import Unsupported
from frontrunner.analysis.importers.values import Lost, count, decoded, finite, number, positive, put, seconds
from frontrunner.analysis.run_log import RunLog
from frontrunner.configs.schema import ModelSpec

BEGUN = re.compile(rb"(?:\[epoch=\d+\])?\[(?:batch|token|sample)=\d+(?:/\d+)?\](?!\s*Eval)")
_STEP = re.compile(r"(\[epoch=\d+\])?\[(batch|token|sample)=(\d+)(?:/(\d+))?\]:?\s*(?:Train\b.*)?$")
_METRIC = re.compile(r"\bTrain ([\w./-]+): (\S+)\s*$")
#: Sizes in the configuration, which is printed as YAML before training and in part again by Composer.
_SETTING = re.compile(
    r"(?:^|[\s:|>\])])(d_model|n_heads|n_layers|expansion_ratio|vocab_size|max_seq_len|global_train_batch_size"
    r"|device_train_microbatch_size|n_gpus|precision|activation_checkpointing|sharding_strategy|kv_n_heads"
    r"|num_gpus_per_node|num_nodes|ffn_type|ffn_hidden_size|alibi|rope|no_bias|tie_word_embeddings"
    r"|learned_pos_emb|sliding_window_size|block_overrides|norm_type):(?:\s+(\S+))?\s*$"
)
_COLUMNS = {
    "loss/train/total": "loss",
    "throughput/device/tokens_per_sec": "tokens_per_s_per_device",
    "throughput/device/flops_per_sec": "printed_flops_per_s",
    "throughput/samples_per_sec": "samples_per_s",
    "l2_norm/grad/global": "gradient_norm",
}
_SEQUENCES = "throughput/device/samples_per_sec"
_BATCHES = "throughput/batches_per_sec"
#: Error of the quotient of two speeds, one of which may have two significant digits.
_ROUNDING = 0.02
_KEPT = ("time/batch", "time/sample", _BATCHES, _SEQUENCES)
_PRECISIONS = {
    "amp_bf16": "bfloat16",
    "amp_fp16": "float16",
    "fp32": "float32",
    "bf16": "bfloat16",
    "amp_fp8": "float8",
}


@dataclass
class LlmFoundry:
    """See ``text_log.Importer``."""

    reading: Reading = field(default_factory=Reading)
    settings: dict[str, str] = field(default_factory=dict)
    ratio: int | None = None
    _open: Values | None = None
    _extra: dict[str, float] = field(default_factory=dict)

    def line(self, record: bytes) -> None:
        if b"=" in record and BEGUN.search(record):
            self._close()
            self._begin(decoded(record))
        elif self._open is not None and b"Train " in record and (found := _METRIC.search(decoded(record))):
            self._metric(self._open, found[1], found[2])
        elif b"Starting training" in record:
            self._close()
            self.reading.start()
        elif self._open is None and b":" in record and (found := _SETTING.search(decoded(record))):
            self.settings.setdefault(found[1], found[2] or "")

    def _begin(self, text: str) -> None:
        found = _STEP.search(text)
        if not found:
            raise Lost
        self._open, self._extra = {}, {}
        if found[2] == "batch" and not found[1]:
            self._open["step"] = count(found[3])
            self.reading.planned = count(found[4]) if found[4] else self.reading.planned
        if told := _METRIC.search(text):
            self._metric(self._open, told[1], told[2])

    def _metric(self, values: Values, name: str, printed: str) -> None:
        if name in _COLUMNS:
            put(values, _COLUMNS[name], number(printed))
        elif name == "metrics/train/LanguageCrossEntropy":
            self._extra["cross_entropy"] = finite(printed)
        elif name == "memory/peak_allocated_mem":
            put(values, "peak_memory_bytes", positive(finite(printed), 1e6) * 1e9)
        elif name == "trainer/device_train_microbatch_size":
            self.settings["device_train_microbatch_size"] = printed
        elif name.startswith("lr-") and name.endswith("/group0"):
            values["learning_rate"] = finite(printed) or None
        elif name in _KEPT:
            self._extra[name] = finite(printed)

    def _close(self) -> None:
        values, extra = self._open, self._extra
        self._open = None
        if not values:
            return
        if "step" not in values and "time/batch" in extra:
            values["step"] = extra["time/batch"] + 1
        if "step" not in values:
            self.reading.lost += 1
            return
        values["loss"] = extra.get("cross_entropy", values.get("loss"))
        try:
            self._derive(values, extra)
        except Lost:
            self.reading.lost += 1
        if len(values) > 1:
            self.reading.add(values)

    def _derive(self, values: Values, extra: dict[str, float]) -> None:
        """Batch, step time and devices from the counters and speeds of one step."""
        batches, samples = extra.get("time/batch"), extra.get("time/sample")
        batch = samples / batches if batches and samples and samples % batches == 0 else None
        batch = batch or self._size("global_train_batch_size")
        values["global_batch_size"] = batch
        speed = values.get("samples_per_s")
        if batch and speed:
            values["step_time_s"] = seconds(batch / speed)
        elif extra.get(_BATCHES):
            values["step_time_s"] = seconds(1 / extra[_BATCHES])
        each, device = extra.get(_SEQUENCES), values.get("tokens_per_s_per_device")
        for name in ("tokens_per_s_per_device", "printed_flops_per_s"):
            if name in values:
                values[name] = positive(values[name], 1e18)
        ratio = speed / each if speed and each and device else 0.0
        if 0.5 < ratio < 1e7 and abs(ratio / round(ratio) - 1) < _ROUNDING:
            self.ratio = round(ratio)

    def _size(self, name: str) -> int | None:
        text = self.settings.get(name, "")
        return int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) and 0 < int(text) < 2**31 else None

    def _devices(self) -> int | None:
        a_node, nodes = self._size("num_gpus_per_node"), self._size("num_nodes")
        return self._size("n_gpus") or (a_node * nodes if a_node and nodes else None)

    def finish(self, path: str, run_id: str) -> RunLog:
        self._close()
        devices = self._devices()
        batch, micro = self._size("global_train_batch_size"), self._size("device_train_microbatch_size")
        recompute = {"true": "full", "false": "none"}.get(self.settings.get("activation_checkpointing", ""))
        layout: dict[str, Any] = {
            "micro_batch_size": micro,
            "recompute": recompute,
            "sharding": self.settings.get("sharding_strategy", "").lower() or None,
        }
        if devices:
            layout = {"tensor": 1, "pipeline": 1, "data": devices, **layout}
            if batch and micro:
                layout["grad_accum_steps"] = batch // (micro * devices) or None
        return RunLog(
            id=run_id,
            path=path,
            format="llm-foundry",
            devices=devices or self.ratio,
            nodes=self._size("num_nodes"),
            model=self._model(run_id),
            layout=layout,
            global_batch_size=batch,
            seq_len=self._size("max_seq_len"),
            precision=_PRECISIONS.get(self.settings.get("precision", "")),
            flop_convention="model",
            planned_steps=self.reading.planned,
            unsupported=tuple(self._unsupported()),
            not_printed={
                "model": "the log does not print the shape of a dense MPT",
                "step_time_s": "Composer prints speeds once its window of batches is full",
                "tokens_per_s_per_device": "Composer prints speeds once its window of batches is full",
            },
        )

    def _unsupported(self) -> list[Unsupported]:
        found = []
        if re.search(r"moe", self.settings.get("ffn_type", "")):
            found.append(
                Unsupported("model", f"ffn_type = {self.settings['ffn_type']}: a mixture of experts")
            )
        if "block_overrides" in self.settings:
            found.append(Unsupported("model", "block_overrides: layers of different shapes"))
        if self._size("sliding_window_size"):
            found.append(Unsupported("attention", "sliding_window_size: sliding-window attention"))
        return found

    def _without_table(self) -> bool:
        """Whether positions have no parameters. ALiBi and rotary positions turn the table off."""
        on = {self.settings.get("alibi"), self.settings.get("rope")} & {"true", "True"}
        return bool(on) or self.settings.get("learned_pos_emb") in ("false", "False")

    def _model(self, name: str) -> ModelSpec | None:
        """An MPT: the keys are those of llmfoundry/models/mpt/configuration_mpt.py."""
        width, heads, layers = (self._size(key) for key in ("d_model", "n_heads", "n_layers"))
        vocabulary = self._size("vocab_size")
        if not (width and heads and layers and vocabulary) or self._unsupported():
            return None
        off = {"false", "False"}
        try:
            return ModelSpec.model_validate(
                {
                    "name": name,
                    "num_layers": layers,
                    "hidden_size": width,
                    "num_heads": heads,
                    "num_kv_heads": self._size("kv_n_heads") or heads,
                    "ffn_hidden_size": self._size("ffn_hidden_size")
                    or (self._size("expansion_ratio") or 4) * width,
                    "vocab_size": vocabulary,
                    "padded_vocab_size": vocabulary,
                    "max_position_embeddings": self._size("max_seq_len") or 2048,
                    "position_embedding": "rotary" if self._without_table() else "learned",
                    "activation": "swiglu" if "glu" in self.settings.get("ffn_type", "") else "gelu",
                    "linear_bias": self.settings.get("no_bias") not in ("true", "True"),
                    "tie_embeddings": self.settings.get("tie_word_embeddings") not in off,
                }
            )
        except ValidationError:
            return None
