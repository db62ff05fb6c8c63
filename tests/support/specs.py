"""Small runs for tests, built without files."""

from __future__ import annotations

from typing import Any

from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import SHARDING_PRESETS, Preset

GPT: dict[str, Any] = {
    "name": "gpt",
    "num_layers": 4,
    "hidden_size": 32,
    "num_heads": 4,
    "num_kv_heads": 4,
    "head_dim": 8,
    "ffn_hidden_size": 128,
    "vocab_size": 60,
    "padded_vocab_size": 64,
    "max_position_embeddings": 16,
    "position_embedding": "learned",
    "rotary_base": 10000.0,
    "rotary_fraction": 1.0,
    "normalization": "layernorm",
    "norm_epsilon": 1e-5,
    "activation": "gelu",
    "parallel_residual": False,
    "linear_bias": True,
    "qkv_bias": True,
    "tie_embeddings": True,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    # Larger than in practice, so that ten steps of a tiny model change its loss a lot.
    "init_std": 0.1,
}
LLAMA = GPT | {
    "name": "llama",
    "num_kv_heads": 2,
    "ffn_hidden_size": 96,
    "position_embedding": "rotary",
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "linear_bias": False,
    "qkv_bias": False,
    "tie_embeddings": False,
}
NEOX = GPT | {
    "name": "neox",
    "position_embedding": "rotary",
    "rotary_fraction": 0.25,
    "parallel_residual": True,
    "tie_embeddings": False,
}
QWEN3 = LLAMA | {"name": "qwen3", "head_dim": 12, "qk_norm": "head"}
OLMO2 = LLAMA | {"name": "olmo2", "num_kv_heads": 4, "qk_norm": "full", "norm_position": "after"}
#: With experts in all layers, and a shared one.
SPARSE = LLAMA | {
    "name": "sparse",
    "experts": {
        "num_experts": 8,
        "experts_per_token": 2,
        "ffn_hidden_size": 48,
        "shared_experts": 3,
        "shared_gate": True,
        "aux_loss": 0.05,
        "z_loss": 0.01,
    },
}
#: With a dense layer, and the scores of DeepSeek-V3 as they are.
SIGMOID = OLMO2 | {
    "name": "sigmoid",
    "experts": {
        "num_experts": 16,
        "experts_per_token": 4,
        "ffn_hidden_size": 24,
        "first_dense_layers": 1,
        "router": "sigmoid",
        "normalize": False,
        "aux_loss": 0.05,
    },
}
MIXTURES = {"sparse": SPARSE, "sigmoid": SIGMOID}
MODELS = {"gpt": GPT, "llama": LLAMA, "neox": NEOX, "qwen3": QWEN3, "olmo2": OLMO2}

#: Few micro-batches a step, as good as many and faster: four on one rank, two on two.
FEW = {"micro_batch_size": 4}
FLOAT32_WIRE = dict.fromkeys(("weights", "gradients", "network"), "float32")


def run_spec(
    *,
    model: dict[str, Any] | str = "gpt",
    nodes: int = 1,
    packages: int = 1,
    devices: int = 1,
    sharding: Preset | tuple[int | str, int | str, int | str] = "ddp",
    layout: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    optimizer: dict[str, Any] | None = None,
    wire: dict[str, Any] | None = None,
    data: Any = "synthetic",
) -> RunSpec:
    """A run of a tiny model on ``nodes`` x ``packages`` x ``devices`` CPU ranks; wires default to float32."""
    preset = sharding if isinstance(sharding, str) else None
    weights, gradients, states = SHARDING_PRESETS[sharding] if isinstance(sharding, str) else sharding
    link = {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-6}
    return RunSpec.model_validate(
        {
            "name": "test",
            "model": (MODELS | MIXTURES)[model] if isinstance(model, str) else model,
            "machine": {
                "name": "test",
                "num_nodes": 64,
                "packages_per_node": packages,
                "devices_per_package": devices,
                "device": {
                    "name": "core",
                    "kind": "cpu",
                    "memory_bytes": 2**30,
                    "peak_flops_per_s": {},
                    "memory_bandwidth_bytes_per_s": None,
                },
                "links": {"package": link, "node": link, "network": link},
            },
            "nodes": nodes,
            "layout": {
                "tensor": 1,
                "sequence_parallel": False,
                "pipeline": 1,
                "virtual_stages": 1,
                "micro_batch_size": 1,
                "recompute": "none",
                "sharding": {
                    "preset": preset,
                    "weights": weights,
                    "gradients": gradients,
                    "optimizer": states,
                    "wire": wire or FLOAT32_WIRE,
                },
            }
            | (layout or {}),
            "training": {
                "seq_len": 16,
                "global_batch_size": 16,
                "steps": 10,
                "precision": "float32",
                "gradient_dtype": "float32",
                "seed": 1234,
                "validate_every_steps": 0,
                "validation_samples": 0,
            }
            | (training or {}),
            "optimizer": {
                "name": "adamw",
                "learning_rate": 1e-2,
                "min_learning_rate": 1e-3,
                "betas": (0.9, 0.95),
                "epsilon": 1e-8,
                "weight_decay": 0.1,
                "clip": 1.0,
                "warmup_steps": 2,
                "decay": "cosine",
                "decay_steps": None,
            }
            | (optimizer or {}),
            "data": data,
        }
    )


def saving(spec: RunSpec, **checkpoint: Any) -> RunSpec:
    """The same run with other keys of ``checkpoint``."""
    data = spec.model_dump()
    return RunSpec.model_validate(data | {"checkpoint": data["checkpoint"] | checkpoint})


def sharing(spec: RunSpec) -> RunSpec:
    """The same run with one communicator for each set of ranks."""
    data = spec.model_dump()
    data["layout"]["sharding"]["communicators"] = "shared"
    return RunSpec.model_validate(data)
