"""Triton kernels of the wire formats for ``cuda`` tensors, including ROCm's.

They write and read the same bytes as :mod:`block_quantize`. A program processes a tile of whole blocks of a
row, wide enough for each thread to move 16 bytes of payload. Division is exact and products are rounded
before addition (``enable_fp_fusion=False``); otherwise the two paths would differ.

Lengths and strides are passed in units of ALIGN elements (8, or 1 if one of them is not a multiple). The
compiler then knows that rows are aligned to 16 bytes and that masks change there. ``n`` is below 2^31.
"""

# Triton's language is not typed Python: kernel arguments are pointers and scalars on a device.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

PIECE = tl.constexpr(16)  # bytes: a thread's widest load or store; payload and scales are padded to it
LEAST_SCALE = tl.constexpr(2.0**-126)
ROUND = tl.constexpr(1.5 * 2**23)
INFINITY_BITS = tl.constexpr(0x7F800000)

# Avoids extra kernels for lengths that happen to be 1 or a multiple of 16.
_jit = triton.jit(
    do_not_specialize=["n_parts", "outer_parts", "inner_parts", "inner_rows", "row_parts", "members"]
)


@triton.jit
def _payload_bytes(n, BITS: tl.constexpr):
    return (n * BITS + PIECE * 8 - 1) // (PIECE * 8) * PIECE


@triton.jit
def _row_bytes(n, BITS: tl.constexpr, BLOCK: tl.constexpr):
    return _payload_bytes(n, BITS) + (n + 4 * BLOCK - 1) // (4 * BLOCK) * PIECE


@triton.jit
def _offsets(blocks, WIDTH: tl.constexpr):
    """Of all elements of these blocks: [len(blocks), WIDTH]."""
    return blocks[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]


@_jit
def quantize_kernel(
    x,
    encoded,
    n_parts,
    outer_parts,
    inner_parts,
    inner_rows,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    n = n_parts * ALIGN
    row = tl.program_id(1)
    outer, inner = (row // inner_rows).to(tl.int64), (row % inner_rows).to(tl.int64)
    blocks = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    x += (outer * outer_parts + inner * inner_parts) * ALIGN
    encoded += row.to(tl.int64) * _row_bytes(n, BITS, BLOCK)
    offsets = _offsets(blocks, BLOCK)
    value = tl.load(x + offsets, mask=offsets < n, other=0.0).to(tl.float32)

    # Magnitudes compare the same as integers as they do as floats; infinity and NaN are above all others.
    bits = tl.max(value.to(tl.int32, bitcast=True) & 0x7FFFFFFF, axis=1)
    finite = bits < INFINITY_BITS
    qmax = tl.full([BLOCKS], 2 ** (BITS - 1) - 1, tl.float32)
    scale = tl.maximum(tl.div_rn(bits.to(tl.float32, bitcast=True), qmax), LEAST_SCALE)
    scale = tl.where(finite, scale, float("inf"))
    value = tl.where(finite[:, None], value, 0.0)
    quotient = tl.div_rn(value, tl.broadcast_to(scale[:, None], [BLOCKS, BLOCK]))
    if BITS == 8:
        payload = (quotient + ROUND).to(tl.int32, bitcast=True).to(tl.uint8)
    else:
        nibbles = ((quotient + (ROUND + 8)).to(tl.int32, bitcast=True) & 15).to(tl.uint8)
        even, odd = tl.split(tl.reshape(nibbles, [BLOCKS, BLOCK // 2, 2]))
        payload = even | (odd << 4)

    payload_bytes = _payload_bytes(n, BITS)
    offsets = _offsets(blocks, BLOCK * BITS // 8)
    tl.store(encoded + offsets, payload, mask=offsets < payload_bytes)
    scales = (encoded + payload_bytes).to(tl.pointer_type(tl.float32))
    count = (n + BLOCK - 1) // BLOCK
    tl.store(scales + blocks, tl.where(blocks < count, scale, 0.0), mask=blocks < (count + 3) // 4 * 4)


@triton.jit
def _decode(row, n, blocks, BITS: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    payload_bytes = _payload_bytes(n, BITS)
    offsets = _offsets(blocks, BLOCK * BITS // 8)
    payload = tl.load(row + offsets, mask=offsets < payload_bytes, other=0)
    scales = (row + payload_bytes).to(tl.pointer_type(tl.float32))
    scale = tl.load(scales + blocks, mask=blocks < (n + BLOCK - 1) // BLOCK, other=0.0)
    if BITS == 8:
        integers = payload.to(tl.int8, bitcast=True)
    else:
        integers = tl.reshape(tl.join(payload & 15, payload >> 4), [BLOCKS, BLOCK]).to(tl.int8) - 8
    return integers.to(tl.float32) * scale[:, None]


@_jit
def dequantize_kernel(
    encoded,
    out,
    n_parts,
    row_parts,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    n = n_parts * ALIGN
    row = tl.program_id(1).to(tl.int64)
    blocks = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    value = _decode(encoded + row * _row_bytes(n, BITS, BLOCK), n, blocks, BITS, BLOCK, BLOCKS)
    if out.dtype.element_ty == tl.float16:
        value += 0.0  # else v_fma_mixlo_f16 takes the product and may round once instead of twice
    offsets = _offsets(blocks, BLOCK)
    tl.store(out + row * row_parts * ALIGN + offsets, value.to(out.dtype.element_ty), mask=offsets < n)


@_jit
def dequantize_sum_kernel(
    encoded,
    out,
    n_parts,
    members,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    ALIGN: tl.constexpr,
):
    n = n_parts * ALIGN
    row, rows = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    blocks = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    row_bytes = _row_bytes(n, BITS, BLOCK).to(tl.int64)
    encoded += row * row_bytes
    total = _decode(encoded, n, blocks, BITS, BLOCK, BLOCKS)
    for _ in range(1, members):
        encoded += rows * row_bytes
        total += _decode(encoded, n, blocks, BITS, BLOCK, BLOCKS)
    offsets = _offsets(blocks, BLOCK)
    tl.store(out + row * n_parts * ALIGN + offsets, total, mask=offsets < n)


@_jit
def sum_kernel(values, out, n_parts, row_parts, members, TILE: tl.constexpr, ALIGN: tl.constexpr):
    """Of rows of floats, which are padded to PIECE."""
    n = n_parts * ALIGN
    row, rows = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    row_elements = row_parts.to(tl.int64) * (PIECE * 8 // values.dtype.element_ty.primitive_bitwidth)
    offsets = tl.program_id(0) * TILE + tl.arange(0, TILE)
    values += row * row_elements
    total = tl.load(values + offsets, mask=offsets < n, other=0.0).to(tl.float32)
    for _ in range(1, members):
        values += rows * row_elements
        total += tl.load(values + offsets, mask=offsets < n, other=0.0).to(tl.float32)
    tl.store(out + row * n_parts * ALIGN + offsets, total, mask=offsets < n)


def block_options(bits: int, block: int, align: int, warp_size: int) -> dict[str, int]:
    """Constants and options of the block kernels: 16 payload bytes per thread, scales in groups of four."""
    per_thread = PIECE.value * 8 // bits
    warps = max(4, 4 * block // (warp_size * per_thread))
    blocks = warps * warp_size * per_thread // block
    constants = {"BITS": bits, "BLOCK": block, "BLOCKS": blocks, "ALIGN": align}
    return constants | {"num_warps": warps, "enable_fp_fusion": False}


def sum_options(align: int, warp_size: int) -> dict[str, int]:
    """Constants and options of the sum of floats: 8 per thread."""
    return {"TILE": 32 * warp_size, "ALIGN": align, "num_warps": 4, "enable_fp_fusion": False}


def quantize(x: Tensor, encoded: Tensor, bits: int, block: int) -> None:
    """Encode ``x`` [a, b, n] to ``encoded``, uint8 [a * b, row bytes]."""
    outer, inner, n = x.shape
    align = _align(n, *x.stride()[:2])
    options = block_options(bits, block, align, _warp_size(x))
    grid = (triton.cdiv(n, options["BLOCKS"] * block), outer * inner)
    outer_parts, inner_parts = x.stride(0) // align, x.stride(1) // align
    quantize_kernel[grid](x, encoded, n // align, outer_parts, inner_parts, inner, **options)


def dequantize(encoded: Tensor, out: Tensor, bits: int, block: int) -> None:
    """Decode to ``out`` [rows, n] of any float dtype."""
    rows, n = out.shape
    align = _align(n, out.stride(0))
    options = block_options(bits, block, align, _warp_size(out))
    grid = (triton.cdiv(n, options["BLOCKS"] * block), rows)
    dequantize_kernel[grid](encoded, out, n // align, out.stride(0) // align, **options)


def dequantize_sum(encoded: Tensor, out: Tensor, bits: int, block: int) -> None:
    """Set ``out`` float32 [rows, n] to the sum of ``encoded`` [members, rows, row bytes] in their order."""
    rows, n = out.shape
    align = _align(n)
    options = block_options(bits, block, align, _warp_size(out))
    grid = (triton.cdiv(n, options["BLOCKS"] * block), rows)
    dequantize_sum_kernel[grid](encoded, out, n // align, len(encoded), **options)


def sum_rows(values: Tensor, out: Tensor) -> None:
    """The same for floats [members, rows, n or more], whose rows are a multiple of 16 bytes long."""
    rows, n = out.shape
    align = _align(n)
    options = sum_options(align, _warp_size(out))
    grid = (triton.cdiv(n, options["TILE"]), rows)
    row_parts = values.stride(1) * values.element_size() // PIECE.value
    sum_kernel[grid](values, out, n // align, row_parts, len(values), **options)


def _align(*lengths: int) -> int:
    return 8 if math.gcd(*lengths) % 8 == 0 else 1


def _warp_size(x: Tensor) -> int:
    """Warp size of the tensor's device: 64 on MI250X, 32 on NVIDIA. Triton's interpreter has none."""
    return torch.cuda.get_device_properties(x.device).warp_size if x.is_cuda else 32
