"""Models with experts in their published sizes, for tests."""

from __future__ import annotations

from typing import Any

from frontrunner.configs.schema import ModelSpec

_LLAMA: dict[str, Any] = {
    "position_embedding": "rotary",
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "linear_bias": False,
    "tie_embeddings": False,
}
#: Jiang et al. 2024, arXiv 2401.04088, table 1.
MIXTRAL: dict[str, Any] = _LLAMA | {
    "name": "mixtral",
    "num_layers": 32,
    "hidden_size": 4096,
    "num_heads": 32,
    "num_kv_heads": 8,
    "ffn_hidden_size": 14336,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "experts": {"num_experts": 8, "experts_per_token": 2, "ffn_hidden_size": 14336},
}
#: Qwen3-30B-A3B's config.json.
QWEN3: dict[str, Any] = _LLAMA | {
    "name": "qwen3",
    "num_layers": 48,
    "hidden_size": 2048,
    "num_heads": 32,
    "num_kv_heads": 4,
    "head_dim": 128,
    "qk_norm": "head",
    "ffn_hidden_size": 6144,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "experts": {"num_experts": 128, "experts_per_token": 8, "ffn_hidden_size": 768},
}
#: Muennighoff et al. 2024, arXiv 2409.02060, and OLMoE-1B-7B's config.json.
OLMOE: dict[str, Any] = _LLAMA | {
    "name": "olmoe",
    "num_layers": 16,
    "hidden_size": 2048,
    "num_heads": 16,
    "num_kv_heads": 16,
    "qk_norm": "full",
    "ffn_hidden_size": 1024,
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
    "experts": {"num_experts": 64, "experts_per_token": 8, "ffn_hidden_size": 1024},
}


def as_model(values: dict[str, Any]) -> ModelSpec:
    """The model as the loader makes it."""
    return ModelSpec.model_validate(values)
