"""The kernels in Triton's interpreter, bit for bit against the path on CPU.

The interpreter is chosen when Triton is first imported, so test_kernels.py runs this file in a process of
its own. Its bfloat16 is not quite one: it takes denormals for zero and truncates or rounds ties away from
zero when it narrows. Of devices' bfloat16 the assembly tells.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from frontrunner.parallelism.runtime.wire import block_quantize, formats, kernels

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BITS = (8, 4)
# Of rows: within one block, ragged in blocks and bytes, over several programs.
LENGTHS = (1, 256, 1000, 4501)


def values(rows: int, n: int, dtype: torch.dtype) -> Tensor:
    """Numbers of all sizes with the special ones here and there, also in blocks of their own."""
    generator = torch.Generator().manual_seed(n)
    x = (
        torch.randn(rows, n, generator=generator)
        * torch.logspace(-45, 30, n)[torch.randperm(n, generator=generator)]
    )
    special = torch.tensor([0.0, -0.0, 1e-45, 2.0**-126, math.inf, -math.inf, math.nan, 3.4e38])
    for row in range(0, rows, 2):
        at = torch.randint(n, (3,), generator=generator)
        x[row, at] = special[torch.randint(len(special), (3,), generator=generator)]
    if dtype == torch.bfloat16:
        x[x.abs() < 2.0**-126] = 0
    return x.to(dtype)


def encode(path: object, x: Tensor, bits: int, block: int) -> Tensor:
    wire = formats.wire_format("int8" if bits == 8 else "int4", block)
    out = torch.full((x.shape[0] * x.shape[1], wire.row_bytes(x.shape[2])), 0xA5, dtype=torch.uint8)
    path.quantize(x, out, bits, block)  # type: ignore[attr-defined]
    return out


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    """NaN as such: its bits differ from device to device."""
    assert torch.equal(ours.isnan(), theirs.isnan())
    integer = torch.int32 if ours.dtype == torch.float32 else torch.int16
    bits, expected = (x.where(~x.isnan(), 0).view(integer) for x in (ours, theirs))
    assert (bits - expected).abs().max() <= (1 if ours.dtype == torch.bfloat16 else 0)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_quantize(bits: int, dtype: torch.dtype, n: int) -> None:
    x = values(12, n, dtype).view(3, 2, 2, n)[:, 1].transpose(0, 1)
    block = 256 if n > 256 else 32
    assert torch.equal(encode(kernels, x, bits, block), encode(block_quantize, x, bits, block))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", BITS)
def test_dequantize(bits: int, dtype: torch.dtype, n: int) -> None:
    encoded = encode(block_quantize, values(3, n, torch.float32)[None], bits, 64)
    ours, theirs = (torch.zeros(3, n + 1, dtype=dtype) for _ in range(2))
    kernels.dequantize(encoded, ours[:, :n], bits, 64)
    block_quantize.dequantize(encoded, theirs[:, :n], bits, 64)
    assert_same(ours, theirs)


MEMBERS_AND_ROWS = pytest.mark.parametrize(("members", "rows"), [(1, 1), (5, 1), (3, 2)])


@MEMBERS_AND_ROWS
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("bits", BITS)
def test_dequantize_sum(bits: int, n: int, members: int, rows: int) -> None:
    encoded = encode(block_quantize, values(members * rows, n, torch.float32)[None], bits, 128)
    encoded = encoded.view(members, rows, -1)
    ours, theirs = torch.ones(rows, n), torch.ones(rows, n)
    kernels.dequantize_sum(encoded, ours, bits, 128)
    block_quantize.dequantize_sum(encoded, theirs, bits, 128)
    assert_same(ours, theirs)


@MEMBERS_AND_ROWS
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sum_rows(dtype: torch.dtype, n: int, members: int, rows: int) -> None:
    padded = math.ceil(n / 8) * 8
    received = values(members * rows, padded, dtype).view(members, rows, padded)
    ours, theirs = torch.ones(rows, n), torch.ones(rows, n)
    kernels.sum_rows(received, ours)
    block_quantize.sum_rows(received, theirs)
    assert_same(ours, theirs)
