"""Model and layout from the configuration that torchtitan prints: its job's dictionary and its model's
arguments.

The names are those of torchtitan/config/job_config.py (70592cb) and torchtitan/models/llama3/model/args.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from frontrunner.analysis.importers.unsupported import Unsupported
from frontrunner.configs.schema import ModelSpec

#: Models that are dense decoders with rotary positions, RMS norms and a gated MLP.
_DENSE = {"llama", "llama2", "llama3", "qwen3"}
_SPARSE_KEYS = ("moe_args", "n_experts", "num_experts", "moe_enabled")


@dataclass
class Config:
    """``batch``: sequences per data-parallel rank and per step, and sequence length."""

    job: Any = None
    model: Any = None
    model_name: str | None = None
    batch: tuple[int | None, int | None, int | None] = (None, None, None)

    def _job(self, section: str, *keys: str) -> Any:
        part = self.job.get(section) if isinstance(self.job, dict) else None
        if not isinstance(part, dict):
            return None
        return next((part[key] for key in keys if key in part), None)

    def log_interval(self) -> int | None:
        return _size(self._job("metrics", "log_freq"))

    def precision(self) -> str | None:
        """The type of matrix products. FSDP casts to it; without FSDP autocast does."""
        converters = self._job("model", "converters")
        if converters:
            return "float8" if "float8" in str(converters) else None
        value = self._job("training", "mixed_precision_param")
        return value if value in ("bfloat16", "float32", "float16") else None

    def layout(
        self, mesh: dict[str, int] | None, recompute: str | None, sharding: str | None
    ) -> dict[str, Any]:
        """The layout in a run file's terms. torchtitan's selective recomputation is not Megatron's."""
        if mesh is None:
            return {}
        local, whole, _ = self.batch
        data = math.prod(size for name, size in mesh.items() if name.startswith("dp"))
        pipeline, context = mesh.get("pp", 1), mesh.get("cp", 1)
        mode = recompute or self._job("activation_checkpoint", "mode")
        return {
            "tensor": mesh.get("tp", 1),
            "pipeline": pipeline,
            **({"context": context} if context > 1 else {}),
            "data": data,
            "micro_batch_size": local if pipeline == 1 else None,
            "grad_accum_steps": whole // (local * data) if whole and local and pipeline == 1 else None,
            "recompute": f"torchtitan's {mode}" if mode not in ("none", "full", None) else mode,
            "sharding": sharding,
        }

    def unsupported(self) -> Iterator[Unsupported]:
        if isinstance(self.model, dict):
            found = next((key for key in _SPARSE_KEYS if self.model.get(key)), None)
            if found and self.model.get("moe_enabled", True):
                yield Unsupported("model", f"{found}: a mixture of experts")
        if self.model_name and self.model_name not in _DENSE:
            yield Unsupported(
                "model", f"torchtitan's model {self.model_name}: no dense decoder that is known"
            )
        mask = self.model.get("attn_mask_type") if isinstance(self.model, dict) else None
        if mask not in (None, "causal"):
            yield Unsupported("attention", f"attn_mask_type = {mask}: attention over a part of the sequence")

    def spec(self, name: str) -> ModelSpec | None:
        """The model; None if it is not printed, or not one of the dense decoders."""
        if not isinstance(self.model, dict) or self.model_name not in _DENSE or list(self.unsupported()):
            return None
        width, layers, heads = (_size(self.model.get(key)) for key in ("dim", "n_layers", "n_heads"))
        vocabulary = _size(self.model.get("vocab_size"))
        if not (width and layers and heads and vocabulary):
            return None
        given = {
            "name": name,
            "num_layers": layers,
            "hidden_size": width,
            "num_heads": heads,
            "num_kv_heads": _size(self.model.get("n_kv_heads")) or heads,
            "head_dim": _size(self.model.get("head_dim")) or width // heads,
            "ffn_hidden_size": self._mlp(width),
            "vocab_size": vocabulary,
            "padded_vocab_size": vocabulary,
            "max_position_embeddings": _size(self.model.get("max_seq_len")) or self.batch[2] or 2048,
            "position_embedding": "rotary",
            "normalization": "rmsnorm",
            "activation": "swiglu",
            "linear_bias": False,
            "tie_embeddings": bool(self.model.get("enable_weight_tying")),
        }
        try:
            return ModelSpec.model_validate(given)
        except ValidationError:
            return None

    def _mlp(self, width: int) -> int:
        """As torchtitan/models/llama3/model/model.py rounds it."""
        own = _size(self.model.get("hidden_dim"))
        if own:
            return own
        hidden, factor = int(2 * 4 * width / 3), self.model.get("ffn_dim_multiplier")
        if isinstance(factor, int | float) and 0 < factor < 1e3:
            hidden = int(factor * hidden)
        multiple = _size(self.model.get("multiple_of")) or 1
        return -(-hidden // multiple) * multiple


def _size(value: object) -> int | None:
    """A positive integer below 2^31, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31 else None
