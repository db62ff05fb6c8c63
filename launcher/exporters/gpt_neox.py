"""GPT-NeoX's configuration file (megatron/neox_arguments and model/transformer.py at ea7aefd)."""

from __future__ import annotations

from typing import Any

import yaml

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.target import (
    Exported,
    Refusals,
    Target,
    check_schedule,
    check_scheme,
    check_wires,
)
from frontrunner.parallelism.layout import Layout

STAGES = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3}


def config(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    """The whole file. Raises SpecError for anything that GPT-NeoX does not support."""
    refusals = Refusals("GPT-NeoX")
    sharding = check_scheme(refusals, spec, layout, tuple(STAGES))
    check_wires(refusals, spec, layout)
    check_schedule(refusals, spec, ("cosine", "linear", "constant"))
    _check_parallel(refusals, spec, layout, sharding)
    refusals.check()
    return _parallel(spec, layout) | _model(spec) | _training(spec) | _zero(spec, sharding)


def export(spec: RunSpec, layout: Layout) -> Exported:
    notes = ("data and tokenizer: add data_path, vocab_file and tokenizer_type",)
    return Exported(yaml.safe_dump(config(spec, layout), sort_keys=False).rstrip(), notes)


def _check_parallel(refusals: Refusals, spec: RunSpec, layout: Layout, sharding: str) -> None:
    refusals.unless(
        layout.virtual_stages == 1,
        "layout.virtual_stages",
        layout.virtual_stages,
        "DeepSpeed's pipeline has no interleaved schedule",
        "use 1",
    )
    refusals.unless(
        layout.pipeline == 1 or sharding in ("ddp", "zero1"),
        "layout.pipeline",
        layout.pipeline,
        "DeepSpeed's ZeRO-2 and ZeRO-3 do not work with its pipeline",
        "use preset zero1, or pipeline 1",
    )
    refusals.unless(
        spec.layout.recompute != "selective",
        "layout.recompute",
        "selective",
        "it recomputes whole layers or nothing",
        "use none or full",
    )
    model = spec.model
    refusals.unless(
        model.head_dim * model.num_heads == model.hidden_size,
        "model.head_dim",
        model.head_dim,
        "its heads are hidden_size / num_heads",
        f"use {model.hidden_size // model.num_heads}",
    )
    refusals.unless(
        model.rotary_scaling_factor is None,
        "model.rotary_scaling_factor",
        model.rotary_scaling_factor,
        "it has no frequency scaling",
        "use a model without it",
    )


def _parallel(spec: RunSpec, layout: Layout) -> dict[str, Any]:
    found: dict[str, Any] = {
        # 0 disables DeepSpeed's pipeline module, as ZeRO-2 and ZeRO-3 require.
        "pipe_parallel_size": layout.pipeline if layout.pipeline > 1 else 0,
        "model_parallel_size": layout.tensor,
        "train_batch_size": spec.training.global_batch_size,
        "train_micro_batch_size_per_gpu": spec.layout.micro_batch_size,
        "gradient_accumulation_steps": spec.grad_accum_steps,
    }
    if spec.layout.sequence_parallel:
        found["sequence_parallel"] = True
    if spec.layout.recompute == "full":
        found |= {"checkpoint_activations": True, "checkpoint_num_layers": 1}
    return found


def _model(spec: RunSpec) -> dict[str, Any]:
    model = spec.model
    llama = model.activation == "swiglu"
    found: dict[str, Any] = {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_heads,
        "num_kv_heads": model.num_kv_heads,
        # GPT-NeoX scales a gated MLP by a third, to match the parameter count of one without a gate.
        "intermediate_size": model.ffn_hidden_size * (3 if llama else 1),
        "seq_length": spec.training.seq_len,
        "max_position_embeddings": model.max_position_embeddings,
        # GPT-NeoX pads to a multiple of this times the tensor ranks.
        "make_vocab_size_divisible_by": model.padded_vocab_size // spec.layout.tensor,
        "norm": model.normalization,
        "pos_emb": model.position_embedding,
        "no_weight_tying": not model.tie_embeddings,
        "gpt_j_residual": model.parallel_residual,
        "activation": "swiglu" if llama else "gelu",
        # The fused kernel is the tanh approximation.
        "bias_gelu_fusion": model.activation == "gelu_tanh",
        "use_bias_in_attn_linear": model.qkv_bias,
        "use_bias_in_mlp": model.linear_bias,
        "init_method_std": model.init_std,
        "hidden_dropout": model.hidden_dropout,
        "attention_dropout": model.attention_dropout,
        "attention_config": [[["flash"], model.num_layers]],
    }
    if model.position_embedding == "rotary":
        found |= {"rotary_pct": model.rotary_fraction, "rotary_emb_base": int(model.rotary_base)}
    found["rms_norm_epsilon" if llama else "layernorm_epsilon"] = model.norm_epsilon
    return found


def _training(spec: RunSpec) -> dict[str, Any]:
    training, optimizer = spec.training, spec.optimizer
    params = {"lr": optimizer.learning_rate, "betas": list(optimizer.betas), "eps": optimizer.epsilon}
    decay_steps = optimizer.decay_steps or training.steps
    found: dict[str, Any] = {
        "optimizer": {"type": "Adam", "params": params},
        "min_lr": optimizer.min_learning_rate,
        "lr_decay_style": optimizer.decay,
        "lr_decay_iters": decay_steps,
        # A fraction of the decay steps.
        "warmup": optimizer.warmup_steps / decay_steps,
        "weight_decay": optimizer.weight_decay,
        "gradient_clipping": optimizer.clip,
        "train_iters": training.steps,
        "seed": training.seed,
    }
    if training.precision == "bfloat16":
        short = {"float32": "fp32", "bfloat16": "bf16"}
        found |= {"precision": "bfloat16", "bf16": {"enabled": True}}
        found["data_types"] = {"grad_accum_dtype": short[training.gradient_dtype]}
    elif training.precision == "float16":
        found |= {"precision": "fp16", "fp16": {"enabled": True, "loss_scale": 0}}
    return found


def _zero(spec: RunSpec, sharding: str) -> dict[str, Any]:
    return {
        "zero_optimization": {
            "stage": STAGES[sharding],
            "overlap_comm": True,
            "reduce_scatter": True,
            "contiguous_gradients": True,
        }
    }


TARGET = Target("gpt-neox", "GPT-NeoX ea7aefd", export)
