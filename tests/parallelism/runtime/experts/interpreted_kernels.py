"""The kernels in Triton's interpreter, against products in float64.

The interpreter is chosen when Triton is first imported, so test_kernels.py runs this file in a process of
its own. It multiplies bfloat16 as if it were integers; of devices' bfloat16 the assembly tells.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from frontrunner.parallelism.runtime.experts import kernels
from frontrunner.parallelism.runtime.experts.grouped import grouped_linear

COUNTS = ([70, 0, 1, 64], [0, 0, 3, 0], [5], [0, 130])
SIZES = ((48, 40), (72, 16), (9, 5))  # outputs and inputs: the last ones are not aligned
#: One rounding of a product to its type, as a share of the sum of magnitudes.
ROUNDING = {torch.float32: 2e-7, torch.float16: 2**-10}


def made(counts: list[int], m: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    n, experts = sum(counts), len(counts)
    x, gradient = (torch.randn(n, width, generator=generator).to(dtype) for width in (k, m))
    weight = torch.randn(experts, m, k, generator=generator).to(dtype)
    starts = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()], dtype=torch.int32)
    return x, weight, gradient, starts


def near(found: Tensor, wanted: Tensor, scale: Tensor) -> None:
    assert found.dtype in ROUNDING
    assert ((found.double() - wanted).abs() <= ROUNDING[found.dtype] * scale + 1e-12).all()


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("m", "k"), SIZES)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_products_and_gradients(counts: list[int], m: int, k: int, dtype: torch.dtype) -> None:
    x, weight, gradient, starts = made(counts, m, k, dtype)
    a, w = x.double().requires_grad_(), weight.double().requires_grad_()
    wanted = grouped_linear(a, w, counts, starts)
    wanted.backward(gradient.double())
    assert a.grad is not None and w.grad is not None
    a_size, w_size, g_size = (tensor.double().abs() for tensor in (x, weight, gradient))
    scale = grouped_linear(a_size, w_size, counts, starts)
    near(kernels.multiply_rows(x, weight, starts, False), wanted, scale)
    scale = grouped_linear(g_size, w_size.transpose(1, 2), counts, starts)
    near(kernels.multiply_rows(gradient, weight, starts, True), a.grad, scale)
    parts = zip(g_size.split(counts), a_size.split(counts), strict=True)
    scale = torch.stack([left.t() @ right for left, right in parts])
    near(kernels.multiply_weight(gradient, x, starts), w.grad, scale)
