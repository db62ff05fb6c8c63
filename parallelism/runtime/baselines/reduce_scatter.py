"""A reduce-scatter of CPU ranks that sends as much as RCCL's.

gloo's own is an all-reduce inside: n ranks send 2 (n - 1) / n of the tensor each, where a reduce-scatter
needs (n - 1) / n. This one is an exchange and a sum. Like gloo's, it has ended when it returns.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp._fully_shard._fsdp_api import ReduceScatter
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllocMixin

Group = Any  # torch.distributed.ProcessGroup, whose stubs miss rank() and size()


def exchange_and_sum(
    output: torch.Tensor,
    whole: torch.Tensor,
    op: Any = dist.ReduceOp.SUM,
    group: Group = None,
    async_op: bool = False,
) -> None:
    """Fill ``output`` [m] with this rank's part of the sum (or mean) of each rank's ``whole`` [n * m].

    The arguments are those of ``torch.distributed.reduce_scatter_tensor``. bfloat16 is summed in float32.
    """
    if op not in (dist.ReduceOp.SUM, dist.ReduceOp.AVG):
        raise ValueError(f"a sum or a mean, not {op}")
    size = dist.get_world_size(group)
    received = torch.empty_like(whole)
    dist.all_to_all_single(received, whole, group=group)
    parts = received.view(size, output.numel())
    if op == dist.ReduceOp.SUM:
        torch.sum(parts, 0, out=output.view(-1))
    else:
        torch.mean(parts, 0, out=output.view(-1))


class ExchangeAndSum(DefaultAllocMixin, ReduceScatter):
    """:func:`exchange_and_sum` as FSDP2 wants it (``set_custom_reduce_scatter``)."""

    def __call__(
        self,
        output_tensor: torch.Tensor,
        input_tensor: torch.Tensor,
        group: Group,
        op: Any,
        async_op: bool = False,
    ) -> None:
        exchange_and_sum(output_tensor, input_tensor, op, group)
