"""The grouped product: each row times the matrix of its expert."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def grouped_linear(x: Tensor, weight: Tensor, counts: list[int], starts: Tensor) -> Tensor:
    """[n, k] rows and [experts, m, k] to [n, m]: row r times the transpose of its expert's matrix.

    ``counts`` [experts] consecutive rows belong to each expert; ``starts`` int32 [experts + 1] says the same
    on the device: where they begin, and n.
    """
    if x.is_cuda:
        return _OnDevice.apply(x, weight, starts)  # type: ignore[no-any-return,no-untyped-call]
    pairs = zip(x.split(counts), weight.unbind(), strict=True)
    return torch.cat([F.linear(rows, matrix) for rows, matrix in pairs])


class _OnDevice(torch.autograd.Function):
    """The kernels, and their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, starts: Tensor) -> Tensor:
        from frontrunner.parallelism.runtime.experts import kernels

        ctx.save_for_backward(x, weight, starts)
        return kernels.multiply_rows(x.contiguous(), weight, starts, transposed=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        from frontrunner.parallelism.runtime.experts import kernels

        x, weight, starts = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_x = kernels.multiply_rows(gradient, weight, starts, transposed=True)
        return of_x, kernels.multiply_weight(gradient, x.contiguous(), starts), None
