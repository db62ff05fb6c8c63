"""Modules that replace parts of megatron-core's layers: norms, and layers of another order."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor


class LayerNorm(torch.nn.LayerNorm):
    """torch's LayerNorm over ``hidden_size``, with megatron-core's signature."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)


class RMSNorm(torch.nn.RMSNorm):
    """torch's RMSNorm over ``hidden_size``, with megatron-core's signature."""

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float, **_: Any) -> None:
        super().__init__(hidden_size, eps=eps)


class NormAfterLayer(TransformerLayer):
    """h = x + norm1(attention(x)), then h + norm2(mlp(h)), as in OLMo 2 (arXiv 2501.00656, section 3.1).

    Biases of the last linear layers are added before the norms, and dropout comes after them.
    """

    def __init__(self, config: TransformerConfig, *args: Any, norm: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.post_self_attn_layernorm = norm(config, config.hidden_size, config.layernorm_epsilon)
        self.post_mlp_layernorm = norm(config, config.hidden_size, config.layernorm_epsilon)

    def forward(
        self, hidden_states: Tensor, rotary_pos_emb: Tensor | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        """[s, b, h] to ([s, b, h], None): megatron-core's layers also return a cross-attention context."""
        attention = self.self_attention(hidden_states, attention_mask=None, rotary_pos_emb=rotary_pos_emb)
        hidden_states = self._add(attention, self.post_self_attn_layernorm, hidden_states)
        return self._add(self.mlp(hidden_states), self.post_mlp_layernorm, hidden_states), None

    def _add(self, found: tuple[Tensor, Tensor | None], norm: torch.nn.Module, residual: Tensor) -> Tensor:
        output, bias = found
        normed = norm(output if bias is None else output + bias)
        add = self.mlp_bda(self.training, self.config.bias_dropout_fusion)
        total: Tensor = add((normed, None), residual, self.hidden_dropout)
        return total


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
