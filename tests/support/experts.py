"""Models with experts in their published sizes, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import ModelSpec, RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload

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
#: Dense layers before and between those with experts, and shared ones: layers 3, 6 and 9 of 12 have experts.
MIXED: dict[str, Any] = MIXTRAL | {
    "name": "mixed",
    "num_layers": 12,
    "experts": {
        "num_experts": 8,
        "experts_per_token": 2,
        "ffn_hidden_size": 512,
        "shared_experts": 2,
        "shared_gate": True,
        "first_dense_layers": 1,
        "every": 3,
    },
}


def as_model(values: dict[str, Any]) -> ModelSpec:
    """The model as the loader makes it."""
    return ModelSpec.model_validate(values)


def spec_of(
    model: dict[str, Any],
    *,
    nodes: int,
    preset: str = "ddp",
    layout: dict[str, Any] | None = None,
    batch: int = 192,
) -> RunSpec:
    """A run on Frontier with sequences of 2048 tokens and messages of 16 bits."""
    wire = "{weights: bfloat16, gradients: bfloat16, network: bfloat16}"
    overrides = [
        *("model=llama-2-7b", f"nodes={nodes}", "layout.pipeline=1", "training.seq_len=2048"),
        f"training.global_batch_size={batch}",
        f"layout.sharding={{preset: {preset}, wire: {wire}}}",
    ]
    spec = load_run("gpt-22b-frontier", overrides).spec
    cut = spec.layout.model_copy(update={"recompute": "none"} | (layout or {}))
    return spec.model_copy(update={"model": as_model(model), "layout": cut})


def planned(model: dict[str, Any], **run: Any) -> tuple[Workload, Candidates]:
    """The workload and layout of :func:`spec_of`."""
    spec = spec_of(model, **run)
    return Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))


def balanced(workload: Workload, c: Candidates) -> tuple[Workload, Candidates]:
    """With the same number of tokens on all ranks."""
    return replace(workload, profile=replace(workload.profile, expert_imbalance=1.0)), c
