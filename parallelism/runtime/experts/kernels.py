"""Triton kernels of the experts' products for ``cuda`` tensors, including ROCm's.

torch's own grouped product fails on MI250X (pytorch#166816). Rows of one expert follow one another; where
they begin is on the device, so the host does not wait to launch. Sums are in float32; products of float32
are not shortened. Widths are passed in units of ALIGN elements (8, or 1 if one of them is no multiple), so
that the compiler knows that rows are aligned. The kernels were compiled for MI250X, MI300X and H100 and
interpreted on CPU, but have not run on a device.
"""

# Triton's language is not typed Python: kernel arguments are pointers and scalars on a device.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Rows, columns and depth of a tile, and warps: small enough for the registers of 4 warps.
ROWS, COLUMNS, DEPTH, WARPS = 64, 64, 32, 4

OPTIONS = {"ROWS": ROWS, "COLUMNS": COLUMNS, "DEPTH": DEPTH, "num_warps": WARPS}

_jit = triton.jit(do_not_specialize=["experts", "column_parts", "depth_parts"])


@_jit
def rows_kernel(
    x,
    weight,
    starts,
    out,
    experts,
    column_parts,
    depth_parts,
    TRANSPOSED: tl.constexpr,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A tile of out [n, columns]: rows of x [n, depth] times their expert's weight.

    ``weight`` is [experts, columns, depth], or TRANSPOSED [experts, depth, columns].
    """
    columns, depth = column_parts * ALIGN, depth_parts * ALIGN
    # Tiles are counted expert by expert; there are more programs than tiles.
    tile = tl.program_id(0)
    expert = tl.program_id(0) * 0
    first = tl.load(starts)
    last = tl.load(starts + 1)
    tiles = (last - first + ROWS - 1) // ROWS
    while (tile >= tiles) & (expert < experts - 1):
        tile -= tiles
        expert += 1
        first = last
        last = tl.load(starts + expert + 1)
        tiles = (last - first + ROWS - 1) // ROWS
    if tile < tiles:
        rows = (first + tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
        weight += expert.to(tl.int64) * columns * depth
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        for begin in range(0, depth, DEPTH):
            inner = begin + tl.arange(0, DEPTH)
            mine = tl.load(
                x + rows[:, None] * depth + inner[None, :],
                mask=(rows < last)[:, None] & (inner < depth)[None, :],
                other=0.0,
            )
            if TRANSPOSED:
                places = inner[:, None] * columns + column[None, :]
            else:
                places = inner[:, None] + column[None, :] * depth
            theirs = tl.load(
                weight + places, mask=(inner < depth)[:, None] & (column < columns)[None, :], other=0.0
            )
            total = tl.dot(mine, theirs, total, input_precision="ieee")
        tl.store(
            out + rows[:, None] * columns + column[None, :],
            total.to(out.dtype.element_ty),
            mask=(rows < last)[:, None] & (column < columns)[None, :],
        )


@_jit
def weight_kernel(
    gradient,
    x,
    starts,
    out,
    column_parts,
    depth_parts,
    ALIGN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """A tile of out [experts, columns, depth]: an expert's rows of gradient [n, columns] times those of x."""
    columns, depth = column_parts * ALIGN, depth_parts * ALIGN
    expert = tl.program_id(2)
    first, last = tl.load(starts + expert), tl.load(starts + expert + 1)
    column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inner = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for begin in range(first, last, DEPTH):
        rows = (begin + tl.arange(0, DEPTH)).to(tl.int64)
        mine = tl.load(
            gradient + rows[None, :] * columns + column[:, None],
            mask=(rows < last)[None, :] & (column < columns)[:, None],
            other=0.0,
        )
        theirs = tl.load(
            x + rows[:, None] * depth + inner[None, :],
            mask=(rows < last)[:, None] & (inner < depth)[None, :],
            other=0.0,
        )
        total = tl.dot(mine, theirs, total, input_precision="ieee")
    out += expert.to(tl.int64) * columns * depth
    tl.store(
        out + column[:, None].to(tl.int64) * depth + inner[None, :],
        total.to(out.dtype.element_ty),
        mask=(column < columns)[:, None] & (inner < depth)[None, :],
    )


def multiply_rows(x: Tensor, weight: Tensor, starts: Tensor, transposed: bool) -> Tensor:
    """x [n, k] times the transpose of weight [experts, m, k] by row; ``transposed``: x [n, m] times weight.

    ``starts`` int32 [experts + 1] on the device; row r belongs to expert e if starts[e] <= r < starts[e + 1].
    """
    experts, m, k = weight.shape
    columns, depth = (k, m) if transposed else (m, k)
    out = x.new_empty(len(x), columns)
    if len(x):
        assert weight.is_contiguous() and x.is_contiguous() and x.shape[1] == depth
        align = _align(columns, depth)
        grid = (triton.cdiv(len(x), ROWS) + experts, triton.cdiv(columns, COLUMNS))
        sizes = (experts, columns // align, depth // align)
        rows_kernel[grid](x, weight, starts, out, *sizes, TRANSPOSED=transposed, ALIGN=align, **OPTIONS)
    return out


def multiply_weight(gradient: Tensor, x: Tensor, starts: Tensor) -> Tensor:
    """The gradient of weight [experts, m, k] from that of the output [n, m] and x [n, k]."""
    assert gradient.is_contiguous() and x.is_contiguous()
    experts, columns, depth = len(starts) - 1, gradient.shape[1], x.shape[1]
    out = torch.empty(experts, columns, depth, dtype=x.dtype, device=x.device)
    align = _align(columns, depth)
    grid = (triton.cdiv(columns, ROWS), triton.cdiv(depth, COLUMNS), experts)
    weight_kernel[grid](gradient, x, starts, out, columns // align, depth // align, ALIGN=align, **OPTIONS)
    return out


def _align(columns: int, depth: int) -> int:
    return 8 if columns % 8 == 0 and depth % 8 == 0 else 1
