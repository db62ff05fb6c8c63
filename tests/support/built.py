"""What a transformer is, whoever builds it: its function and its parameters, from any trainer's settings.

Readers of other trainers' settings (``support.trainers``) and :func:`ours` give the same type, so that two
models are one exactly when they are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from frontrunner.configs.schema import ModelSpec


class Stops(Exception):
    """The trainer ends with an error instead of building the model."""


@dataclass(frozen=True)
class Positions:
    """Learned: ``rows`` of a table. Rotary: the first ``rotated`` of a head's values, at base and scale."""

    rows: int = 0
    rotated: int = 0
    base: float = 0.0
    scaling: float | None = None


@dataclass(frozen=True)
class Dropouts:
    embedding: float
    attention_weights: float
    after_attention: float
    after_mlp: float


@dataclass(frozen=True)
class Built:
    """A decoder-only transformer. ``width`` is that of the MLP, once for each of gate and value."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    width: int
    rows: int
    tied: bool
    positions: Positions
    norm: str
    epsilon: float
    activation: str
    norms_after: bool
    #: Of queries and keys: "none", "head" or "full".
    qk_norm: str
    parallel: bool
    uses_attention: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    dropouts: Dropouts
    #: Of the embedding and of layers that end in the residual stream; None: the trainer's own.
    init_std: tuple[float, float] | None
    softmax_scale: float

    def parameters(self) -> int:
        """Of the whole model, a tied embedding once."""
        attention = self.heads * self.head_dim
        qkv = attention + 2 * self.kv_heads * self.head_dim
        up = self.width * (2 if self.activation == "swiglu" else 1)
        norm = self.hidden * (2 if self.norm == "layernorm" else 1)
        layer = self.hidden * (qkv + attention + up + self.width) + 2 * norm
        layer += qkv * self.qkv_bias + self.hidden * self.output_bias
        layer += (up + self.hidden) * self.mlp_bias
        layer += {"none": 0, "head": 2, "full": self.heads + self.kv_heads}[self.qk_norm] * self.head_dim
        words = self.rows * self.hidden
        return (
            words * (1 if self.tied else 2) + self.positions.rows * self.hidden + self.layers * layer + norm
        )


def ours(model: ModelSpec) -> Built:
    """What the runtime builds for a model (``runtime/gpt``)."""
    rotary = model.position_embedding == "rotary"
    scaling = None if model.rotary_scaling_factor == 1.0 else model.rotary_scaling_factor
    rotated = int(model.head_dim * model.rotary_fraction)
    hidden = model.hidden_dropout
    return Built(
        layers=model.num_layers,
        hidden=model.hidden_size,
        heads=model.num_heads,
        kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        width=model.ffn_hidden_size,
        rows=model.padded_vocab_size,
        tied=model.tie_embeddings,
        positions=Positions(0, rotated, model.rotary_base, scaling)
        if rotary
        else Positions(model.max_position_embeddings),
        norm=model.normalization,
        epsilon=model.norm_epsilon,
        activation=model.activation,
        norms_after=model.norm_position == "after",
        qk_norm=model.qk_norm,
        parallel=model.parallel_residual,
        uses_attention=True,
        qkv_bias=model.qkv_bias,
        output_bias=model.linear_bias,
        mlp_bias=model.linear_bias,
        dropouts=Dropouts(hidden, model.attention_dropout, hidden, hidden),
        init_std=(model.init_std, model.init_std / math.sqrt(2 * model.num_layers)),
        softmax_scale=model.head_dim**-0.5,
    )
