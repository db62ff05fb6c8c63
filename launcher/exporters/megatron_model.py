"""The model in Megatron-LM's arguments, and what they cannot express.

Checked at core_v0.16.1 and d98e8a64, where these agree: ``validate_args`` and
``core_transformer_config_from_args`` (megatron/training), ``MLP.forward`` (core/transformer/mlp.py) and
``gpt_builder`` (gpt_builders.py).
"""

from __future__ import annotations

from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.exporters.combinations import (
    NORMS_BEFORE,
    WHOLE_BASE,
    Combination,
    positions,
    rotary_scaling,
)

Arguments = dict[str, object]
"""Values by option; True for flags."""

#: ``gpt_builder`` does not pass --rope-scaling-factor on, and this is GPTModel's default.
SCALING = 8.0

COMBINATIONS = (
    Combination(
        "activation",
        # --disable-bias-linear switches bias_gelu_fusion off, and --openai-gelu is not read.
        lambda m: m.activation == "gelu_tanh" and not m.linear_bias,
        "without biases it builds the exact GELU; the tanh approximation is only in its kernel "
        "that adds a bias",
        lambda m: {"activation": "gelu"},
    ),
    Combination(
        "parallel_residual",
        lambda m: m.parallel_residual,
        "its MLP always runs after attention, and reads what attention added",
        lambda m: {"parallel_residual": False},
    ),
    Combination(
        "rotary_scaling_factor",
        lambda m: rotary_scaling(m) not in (None, SCALING),
        "it always scales frequencies by 8, whatever --rope-scaling-factor says",
        lambda m: {"rotary_scaling_factor": SCALING},
    ),
    Combination(
        "qk_norm",
        lambda m: m.qk_norm == "full",
        "its norms of queries and keys (--qk-layernorm) are of each head",
        lambda m: {"qk_norm": "head"},
    ),
    NORMS_BEFORE,
    WHOLE_BASE,
)


def model_arguments(spec: RunSpec) -> Arguments:
    """The model's arguments in order; right for models that no row of COMBINATIONS describes."""
    model = spec.model
    found: Arguments = {
        "--num-layers": model.num_layers,
        "--hidden-size": model.hidden_size,
        "--ffn-hidden-size": model.ffn_hidden_size,
        "--num-attention-heads": model.num_heads,
        "--kv-channels": model.head_dim,
        "--max-position-embeddings": positions(model, spec.training.seq_len),
        # Megatron-LM pads to a multiple of this times the tensor ranks: here the model's rows.
        "--make-vocab-size-divisible-by": model.padded_vocab_size // spec.layout.tensor,
        # NullTokenizer of core_v0.16 adds the end-of-document token; later ones do not. Either way the
        # padded vocabulary is the model's.
        "--vocab-size": max(1, model.vocab_size - 1),
        "--norm-epsilon": model.norm_epsilon,
        "--init-method-std": model.init_std,
        "--attention-dropout": model.attention_dropout,
        "--hidden-dropout": model.hidden_dropout,
    }
    if model.num_kv_heads != model.num_heads:
        found |= {"--group-query-attention": True, "--num-query-groups": model.num_kv_heads}
    if model.position_embedding == "rotary":
        found |= {"--position-embedding-type": "rope", "--rotary-base": int(model.rotary_base)}
        found["--rotary-percent"] = model.rotary_fraction
    flags = {
        "--use-rope-scaling": rotary_scaling(model) is not None,
        "--swiglu": model.activation == "swiglu",
        # The kernel that adds the bias computes the tanh approximation.
        "--no-bias-gelu-fusion": model.activation == "gelu",
        "--untie-embeddings-and-output-weights": not model.tie_embeddings,
        "--disable-bias-linear": not model.linear_bias,
        "--add-qkv-bias": model.qkv_bias and not model.linear_bias,
        "--qk-layernorm": model.qk_norm == "head",
    }
    if model.normalization == "rmsnorm":
        found["--normalization"] = "RMSNorm"
    return found | {name: True for name, given in flags.items() if given}


def training_arguments(spec: RunSpec) -> Arguments:
    """Length, optimizer and schedule, which Megatron-DeepSpeed names likewise."""
    training, optimizer = spec.training, spec.optimizer
    return {
        "--seq-length": training.seq_len,
        "--train-iters": training.steps,
        "--seed": training.seed,
        "--optimizer": "adam",
        "--lr": optimizer.learning_rate,
        "--min-lr": optimizer.min_learning_rate,
        "--lr-decay-style": optimizer.decay,
        "--lr-warmup-iters": optimizer.warmup_steps,
        "--lr-decay-iters": optimizer.decay_steps or training.steps,
        "--adam-beta1": optimizer.betas[0],
        "--adam-beta2": optimizer.betas[1],
        "--adam-eps": optimizer.epsilon,
        "--weight-decay": optimizer.weight_decay,
        "--clip-grad": optimizer.clip,
    }


def precision_arguments(spec: RunSpec) -> Arguments:
    """The flag of a 16-bit precision."""
    flags = {"bfloat16": "--bf16", "float16": "--fp16"}
    return {flags[spec.training.precision]: True} if spec.training.precision in flags else {}
