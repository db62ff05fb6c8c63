"""The block-quantised formats on CPU tensors, with torch's vectorised operations.

All rows are processed together in as few operations as possible: starting one costs as much as about ten
thousand elements. Adding ``1.5 * 2^23`` to a quotient rounds it to even and leaves the integer in its last
bits. Division, rounding and (for int4) the shift to an unsigned nibble thus take one operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = 16  # bytes
LEAST_SCALE = 2.0**-126  # smallest normal float32: no division by zero, no denormal product
ROUND = 1.5 * 2**23
CHUNK = 2**19  # elements over all rows: bounds temporaries, which take up to 8 bytes per element

_MAGNITUDE = {
    torch.float32: (torch.int32, 0x7FFFFFFF),
    torch.bfloat16: (torch.int16, 0x7FFF),
    torch.float16: (torch.int16, 0x7FFF),
}


def padded(nbytes: int) -> int:
    return math.ceil(nbytes / PADDING) * PADDING


def payload_bytes(n: int, bits: int) -> int:
    return padded(math.ceil(n * bits / 8))


def quantize(x: Tensor, encoded: Tensor, bits: int, block: int) -> None:
    """Encode ``x`` [a, b, n] to ``encoded``, uint8 [a * b, row bytes]."""
    outer, inner, n = x.shape
    payload, scales = _parts(encoded, n, bits)
    count = math.ceil(n / block)
    scales[:, count:] = 0
    for blocks in _chunks(len(encoded), count, block):
        part = x[..., blocks.start * block : blocks.stop * block]
        if missing := (blocks.stop - blocks.start) * block - part.shape[2]:
            part = F.pad(part, (0, missing))
        scale = scales[:, blocks].view(outer, inner, -1, 1)
        integers = _quantize_blocks(part.unflatten(2, (-1, block)), scale, bits)
        if bits == 4:
            pairs = integers.to(torch.int8, memory_format=torch.contiguous_format).view(torch.int16)
            integers = (pairs >> 4).bitwise_or_(pairs)
        target = payload[:, _bytes(blocks, bits, block)].unflatten(0, (outer, inner))
        target.copy_(integers.flatten(2)[..., : target.shape[2]])


def _quantize_blocks(x: Tensor, scale: Tensor, bits: int) -> Tensor:
    """[a, b, blocks, block] to int32 whose last bits are sent, and ``scale`` [a, b, blocks, 1].

    The quotients need no clamp: a scale is a normal number, so none exceeds qmax by more than rounding.
    """
    # Magnitudes compare the same as integers as they do as floats; infinity and NaN are above all others.
    integer, mask = _MAGNITUDE[x.dtype]
    largest = (x.view(integer) & mask).amax(-1, keepdim=True).view(x.dtype).float()
    torch.clamp(largest / (2 ** (bits - 1) - 1), min=LEAST_SCALE, out=scale)
    if not scale.max().item() < math.inf:
        broken = ~(scale < math.inf)
        scale.masked_fill_(broken, math.inf)
        x = x.masked_fill(broken, 0)
    rounding = torch.full((x.shape[-1],), ROUND + (8 if bits == 4 else 0), device=x.device)
    return torch.addcdiv(rounding, x, scale).view(torch.int32)


def dequantize(encoded: Tensor, out: Tensor, bits: int, block: int) -> None:
    """Decode to ``out`` [rows, n] of any float dtype."""
    for blocks, values in _decoded(encoded, out.shape[1], bits, block):
        part = out[:, blocks.start * block : blocks.stop * block]
        part.copy_(values[:, : part.shape[1]])


def dequantize_sum(encoded: Tensor, out: Tensor, bits: int, block: int) -> None:
    """Set ``out`` float32 [rows, n] to the sum of ``encoded`` [members, rows, row bytes] in their order."""
    rows, n = out.shape
    for blocks, values in _decoded(encoded.flatten(0, 1), n, bits, block):
        sum_rows(values.unflatten(0, (-1, rows)), out[:, blocks.start * block : blocks.stop * block])


def sum_rows(values: Tensor, out: Tensor) -> None:
    """The same for floats [members, rows, n or more]."""
    first, *others = values[..., : out.shape[1]]
    out.copy_(first)
    for other in others:
        out += other


def _decoded(encoded: Tensor, n: int, bits: int, block: int) -> Iterator[tuple[slice, Tensor]]:
    """Ranges of blocks and their values, float32 [rows, blocks * block], with the last block padded."""
    payload, scales = _parts(encoded, n, bits)
    for blocks in _chunks(len(encoded), math.ceil(n / block), block):
        packed = payload[:, _bytes(blocks, bits, block)]
        if missing := (blocks.stop - blocks.start) * block * bits // 8 - packed.shape[1]:
            packed = F.pad(packed, (0, missing))
        if bits == 4:
            pairs = packed.to(torch.int16)
            integers = (pairs << 4).bitwise_or_(pairs).bitwise_and_(0x0F0F).view(torch.int8).sub_(8)
        else:
            integers = packed.view(torch.int8)
        values = integers.float()
        values.view(len(encoded), -1, block).mul_(scales[:, blocks].unsqueeze(2))
        yield blocks, values


def _parts(encoded: Tensor, n: int, bits: int) -> tuple[Tensor, Tensor]:
    """Payload, uint8 [rows, bytes], and scales, float32 [rows, blocks], both with their padding."""
    width = payload_bytes(n, bits)
    return encoded[:, :width], encoded[:, width:].view(torch.float32)


def _chunks(rows: int, count: int, block: int) -> Iterator[slice]:
    """Ranges of the ``count`` blocks of a row."""
    step = max(1, CHUNK // (rows * block))
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def _bytes(blocks: slice, bits: int, block: int) -> slice:
    """The position of these blocks in the payload."""
    return slice(blocks.start * block * bits // 8, blocks.stop * block * bits // 8)
