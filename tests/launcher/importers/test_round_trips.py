"""What we export to another trainer, imported again, is the same run."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.commands.export import TARGETS
from frontrunner.launcher.importers.drafting import Request, imported
from frontrunner.parallelism.layout import Layout
from support.specs import GPT, LLAMA, NEOX, run_spec

TITAN = LLAMA | {
    **{"num_layers": 6, "hidden_size": 256, "num_heads": 16, "num_kv_heads": 16, "head_dim": 16},
    **{"ffn_hidden_size": 768, "vocab_size": 2048, "padded_vocab_size": 2048, "rotary_base": 500000.0},
    **{"rotary_scaling_factor": 8.0, "max_position_embeddings": 131072, "norm_epsilon": 1e-5},
}
EXPERTS = {"num_experts": 8, "experts_per_token": 2, "ffn_hidden_size": 48, "aux_loss": 0.02}
MODELS: dict[str, dict[str, Any]] = {
    "gpt": GPT,
    "exact gelu": GPT | {"activation": "gelu", "norm_epsilon": 1e-6, "hidden_dropout": 0.2},
    "llama": LLAMA,
    "qk-norm": LLAMA | {"qk_norm": "head"},
    "tied": LLAMA | {"tie_embeddings": True, "rotary_fraction": 0.5},
    "neox": NEOX,
    "titan": TITAN,
    "experts": LLAMA | {"experts": EXPERTS | {"shared_experts": 2, "shared_gate": True, "z_loss": 0.01}},
    "experts after a dense layer": LLAMA
    | {"experts": EXPERTS | {"first_dense_layers": 1, "normalize": False, "aux_loss": 0.0}},
    "experts in every other layer": LLAMA | {"experts": EXPERTS | {"every": 2, "router": "sigmoid"}},
}
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"sharding": "ddp"},
    {"sharding": "zero1", "tensor": 2, "sequence_parallel": True, "recompute": "full"},
    {"sharding": "zero1", "pipeline": 2, "virtual_stages": 2, "micro_batch_size": 2},
    {"sharding": "zero2"},
    {"sharding": "zero3", "recompute": "selective"},
    {"sharding": "hsdp"},
)
RUNS: tuple[dict[str, Any], ...] = (
    {"precision": "bfloat16", "gradient_dtype": "float32", "decay": "cosine"},
    {"precision": "bfloat16", "gradient_dtype": "bfloat16", "decay": "linear"},
    {"precision": "float16", "gradient_dtype": "float32", "decay": "constant"},
    {"precision": "float32", "gradient_dtype": "float32", "decay": "cosine"},
)
ENDINGS = {
    "megatron": "sh",
    "megatron-deepspeed": "sh",
    "gpt-neox": "yml",
    "deepspeed": "json",
    "torchtitan": "toml",
}


def spec_of(model: dict[str, Any], layout: dict[str, Any], run: dict[str, Any]) -> RunSpec:
    layout, run = dict(layout), dict(run)
    training = {"seq_len": 16, "global_batch_size": 64, "steps": 40, "seed": 7}
    training |= {key: run[key] for key in ("precision", "gradient_dtype")}
    training["compile"] = not model.get("hidden_dropout")
    optimizer = {"learning_rate": 1e-3, "min_learning_rate": 2e-4, "betas": [0.8, 0.9], "warmup_steps": 4}
    optimizer |= {"decay": run["decay"], "weight_decay": 0.3, "clip": 0.5, "epsilon": 1e-7}
    return run_spec(
        model=model,
        nodes=2,
        packages=4,
        devices=2,
        sharding=layout.pop("sharding"),
        layout=layout,
        training=training,
        optimizer=optimizer,
    )


def comparable(spec: RunSpec, without: tuple[str, ...]) -> dict[str, Any]:
    """What a trainer's file can say of a run, by dotted key."""
    layout = Layout.from_spec(spec)
    found: dict[str, Any] = {
        "model": spec.model.model_dump(exclude={"name", "sources"}),
        "training": spec.training.model_dump(exclude={"deterministic", "tokens"}),
        "optimizer": spec.optimizer.model_dump(),
        "layout": spec.layout.model_dump(exclude={"sharding"})
        | {"degrees": (layout.weights, layout.gradients, layout.optimizer), "ranks": layout.data},
    }
    flat = {f"{part}.{key}": value for part, values in found.items() for key, value in values.items()}
    return {key: value for key, value in flat.items() if not key.startswith(without)}


#: What each trainer's file does not hold.
WITHOUT: dict[str, tuple[str, ...]] = {
    "megatron": ("training.compile",),
    "megatron-deepspeed": ("training.compile",),
    "gpt-neox": ("training.compile",),
    "deepspeed": (
        "training.compile",
        "model",
        "layout",
        "training.seq_len",
        "training.seed",
        "training.steps",
    ),
    "torchtitan": ("training.gradient_dtype", "model.init_std"),
}


def round_trip(target: str, spec: RunSpec, folder: Path) -> RunSpec | None:
    """The run that came back; None if it is not exported."""
    layout = Layout.from_spec(spec)
    try:
        text = TARGETS[target].export(spec, layout).text
    except SpecError:
        return None
    path = folder / f"run.{ENDINGS[target]}"
    path.write_text(text)
    variables = {} if target != "gpt-neox" else {"vocab_size": str(spec.model.vocab_size)}
    model = "gpt-tiny" if target == "deepspeed" else None
    request = Request([path], None, model, "lumi-g", spec.nodes, variables, [], folder)
    return imported(request).document.spec


@pytest.mark.parametrize("target", TARGETS)
def test_an_exported_run_comes_back(target: str, tmp_path: Path) -> None:
    back, refused = 0, 0
    for (name, model), layout, run in product(MODELS.items(), LAYOUTS, RUNS):
        if model["num_layers"] % (layout.get("pipeline", 1) * layout.get("virtual_stages", 1)):
            continue
        spec = spec_of(model, layout, run)
        found = round_trip(target, spec, tmp_path)
        refused += found is None
        if found is None:
            continue
        back += 1
        without = WITHOUT[target]
        if spec.model.position_embedding == "rotary":
            without = (*without, "model.max_position_embeddings")  # no limit there: exported as seq_len
        else:
            without = (*without, "model.rotary_")
        if spec.optimizer.decay == "constant":
            without = (*without, "optimizer.min_learning_rate")
        assert comparable(found, without) == comparable(spec, without), (name, layout, run)
    assert back >= 8, (back, refused)
