"""Self-attention as megatron-core has it, with our core, and norms of queries and keys."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.tensor_parallel.mappings import all_gather_last_dim_from_tensor_parallel_region
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.attention import SelfAttention as MegatronSelfAttention
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor

from frontrunner.parallelism.runtime.gpt.modules import RMSNorm
from frontrunner.parallelism.runtime.process_groups import Group


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


class WholeRMSNorm(torch.nn.Module):
    """RMSNorm over the values of all heads together, which the ranks of ``group`` share (OLMo 2).

    ``size`` is the number of values of a token on this rank. ``weight`` [size] is this rank's part.
    """

    def __init__(self, size: int, eps: float, group: Group) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.eps, self.group = eps, group

    def forward(self, heads: Tensor) -> Tensor:
        """[s, b, heads, head_dim] of this rank to the same shape."""
        values = heads.flatten(2).float()
        squares = values.square().sum(-1, keepdim=True)
        if self.group.size() > 1:
            squares = _SumOverRanks.apply(squares, self.group)  # type: ignore[no-untyped-call]
        mean = squares / (values.size(-1) * self.group.size())
        normed = values * torch.rsqrt(mean + self.eps) * self.weight
        return normed.to(heads.dtype).view_as(heads)


class _SumOverRanks(torch.autograd.Function):
    """The sum of what the ranks hold. Each rank goes on with it alone, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return _summed(values, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _summed(gradients[0], ctx.group), None


def _summed(values: Tensor, group: Group) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class SelfAttention(MegatronSelfAttention):
    """megatron-core's self-attention, whose queries and keys may have norms before they are rotated.

    ``qk_norm`` is the model's field. The weight of a norm of each head is the same on all tensor ranks, and
    each of them only sees its own heads.

    With more tensor ranks than key and value heads, the ranks of ``key_value`` share one. The projection is
    cut evenly all the same: no parameter is held twice. These ranks together compute their queries, key and
    value, gather them, and each goes on with its own queries.
    """

    def __init__(
        self, config: TransformerConfig, *args: Any, qk_norm: str, key_value: Group, **kwargs: Any
    ) -> None:
        super().__init__(config, *args, **kwargs)
        self.key_value = key_value
        eps, size = config.layernorm_epsilon, self.hidden_size_per_attention_head

        def norm(heads: int) -> torch.nn.Module:
            if qk_norm == "full":
                return WholeRMSNorm(heads * size, eps, self.pg_collection.tp)
            return RMSNorm(config, size, eps)

        if qk_norm != "none":
            self.q_layernorm = norm(self.num_attention_heads_per_partition)
            self.k_layernorm = norm(self.num_query_groups_per_partition)

    def get_query_key_value_tensors(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """[s, b, h] to query, key and value, [s, b, heads of this rank, head_dim] each."""
        ranks = self.key_value.size()
        if ranks == 1:
            return super().get_query_key_value_tensors(hidden_states, *args, **kwargs)
        part, _ = self.linear_qkv(hidden_states)
        # Backwards, this sums what the ranks found for the key and the value.
        whole = all_gather_last_dim_from_tensor_parallel_region(part, group=self.key_value)
        heads = whole.unflatten(-1, (-1, self.hidden_size_per_attention_head))
        queries, key, value = heads.split((heads.size(2) - 2, 1, 1), dim=2)
        # A copy of what this rank uses, so that the others' queries are freed.
        query, key, value = (
            each.clone() for each in (queries.chunk(ranks, dim=2)[self.key_value.rank()], key, value)
        )
        if self.q_layernorm is not None:
            query, key = self.q_layernorm(query), self.k_layernorm(key)
        return query, key, value
