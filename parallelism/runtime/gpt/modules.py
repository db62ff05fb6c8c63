"""Modules that replace parts of megatron-core's layers: attention, norms, the parallel residual layer."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor


class CoreAttention(torch.nn.Module):
    """Causal attention through torch's scaled_dot_product_attention (Flash kernels on ROCm and CUDA)."""

    def __init__(self, config: TransformerConfig, **_: Any) -> None:
        super().__init__()
        self.dropout = config.attention_dropout
        self.sequence_parallel = config.sequence_parallel
        self.grouped = config.num_query_groups != config.num_attention_heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
    ) -> Tensor:
        """[s, b, heads, head_dim] each (fewer heads for key and value) to [s, b, heads * head_dim]."""
        dropout = self.dropout if self.training else 0.0
        # Each tensor rank has different heads and needs its own masks. With sequence parallelism the whole
        # layer already runs inside that fork.
        fork = get_cuda_rng_tracker().fork() if dropout and not self.sequence_parallel else nullcontext()
        with fork:
            out = F.scaled_dot_product_attention(
                query.permute(1, 2, 0, 3),
                key.permute(1, 2, 0, 3),
                value.permute(1, 2, 0, 3),
                dropout_p=dropout,
                is_causal=True,
                enable_gqa=self.grouped,
            )
        return out.permute(2, 0, 1, 3).flatten(2)


class LayerNorm(torch.nn.LayerNorm):
    """torch's LayerNorm over ``hidden_size``, with megatron-core's signature."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm over ``hidden_size``, with megatron-core's signature."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)


class ParallelResidualLayer(TransformerLayer):
    """x + attention(norm1(x)) + mlp(norm2(x)), as in GPT-NeoX (Black et al. 2022, section 2.1)."""

    def forward(
        self, hidden_states: Tensor, rotary_pos_emb: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """[s, b, h] to ([s, b, h], None): megatron-core's layers also return a cross-attention context."""
        attention = self.self_attention(
            self.input_layernorm(hidden_states), attention_mask=None, rotary_pos_emb=rotary_pos_emb
        )
        mlp = self.mlp(self.pre_mlp_layernorm(hidden_states))
        add = self.mlp_bda(self.training, self.config.bias_dropout_fusion)
        return add(mlp, add(attention, hidden_states, self.hidden_dropout), self.hidden_dropout), None
