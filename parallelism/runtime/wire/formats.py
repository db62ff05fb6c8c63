"""Wire formats of a row of floats: ``float32``, ``bfloat16``, ``float16``, ``int8`` or ``int4``.

An encoded row is the payload followed by the scales, each padded to 16 bytes (scales with zeros, the payload
with encoded zeros). The integer formats are symmetric, with a float32 scale for each block of consecutive
elements; the last block may be shorter:

    scale = max(max|x| / qmax, 2^-126)        qmax is 127 or 7
    q     = x / scale, rounded to even        within [-qmax, qmax]
    x'    = q * scale                         rounded to float32, then to the requested type

so ``|x - x'| <= scale / 2`` up to the rounding of x', which only overflows if x is the largest float32. int8
is sent as two's complement, int4 as ``q + 8`` with element 2i in the low nibble of byte i. An infinite or NaN
element makes its block's scale infinite and every q zero, so the block decodes to NaN. Bytes and sums are the
same on every device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import torch
from torch import Tensor

from frontrunner.parallelism.runtime.wire import block_quantize

WireName = Literal["float32", "bfloat16", "float16", "int8", "int4"]
LEAST_BLOCK, GREATEST_BLOCK = 32, 2048  # elements: 16 bytes of int4; what a kernel's registers hold

_FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BITS = {"int8": 8, "int4": 4}


def wire_format(name: WireName, block: int = 256) -> WireFormat:
    """The format of that name. ``block`` is for integer formats, a power of two from 32 to 2048."""
    if name in _FLOATS:
        return FloatFormat(name, block)
    if block & (block - 1) or not LEAST_BLOCK <= block <= GREATEST_BLOCK:
        raise ValueError(f"block = {block}: must be a power of two from {LEAST_BLOCK} to {GREATEST_BLOCK}")
    return BlockFormat(name, block)


@dataclass(frozen=True)
class WireFormat(ABC):
    """Encodes rows of float32, bfloat16 or float16 to bytes of a fixed length and back."""

    name: WireName
    block: int

    @abstractmethod
    def row_bytes(self, n: int) -> int:
        """Length of an encoded row of ``n`` elements, a multiple of 16."""

    def keeps(self, dtype: torch.dtype) -> bool:
        """Whether values of ``dtype`` are sent unchanged."""
        return False

    def encode(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """Encode ``x`` [..., n] to uint8 [rows, row bytes], ``out`` if given.

        Rows are the (at most two) leading dims in row-major order. These may have any strides; the last dim
        and ``out`` are contiguous.
        """
        x = x[(None,) * (3 - x.dim())]
        outer, inner, n = x.shape
        encoded = x.new_empty(outer * inner, self.row_bytes(n), dtype=torch.uint8) if out is None else out
        assert encoded.shape == (outer * inner, self.row_bytes(n)) and encoded.is_contiguous()
        if x.numel():
            assert x.stride(2) == 1 or n == 1
            self._encode(x, encoded)
        return encoded

    def decode(self, encoded: Tensor, n: int, out: Tensor) -> None:
        """Decode uint8 [rows, row bytes] to ``out`` [rows, n] of any float dtype, its last dim contiguous."""
        assert encoded.shape == (len(out), self.row_bytes(n)) and encoded.is_contiguous()
        assert out.shape[1] == n and (out.stride(1) == 1 or n <= 1)
        if out.numel():
            self._decode(encoded, out)

    def decode_sum(self, encoded: Tensor, out: Tensor) -> None:
        """Set ``out``, float32 [rows, n], to the sum over the members of uint8 [members, rows, row bytes].

        They are added in float32 and in order, starting with the first.
        """
        assert encoded.shape[1:] == (len(out), self.row_bytes(out.shape[1])) and encoded.is_contiguous()
        assert len(encoded) and out.dtype == torch.float32 and out.is_contiguous()
        if out.numel():
            self._decode_sum(encoded, out)

    @abstractmethod
    def _encode(self, x: Tensor, encoded: Tensor) -> None: ...

    @abstractmethod
    def _decode(self, encoded: Tensor, out: Tensor) -> None: ...

    @abstractmethod
    def _decode_sum(self, encoded: Tensor, out: Tensor) -> None: ...


class FloatFormat(WireFormat):
    """A float type; values are rounded to even."""

    def row_bytes(self, n: int) -> int:
        return block_quantize.padded(n * _FLOATS[self.name].itemsize)

    def keeps(self, dtype: torch.dtype) -> bool:
        return dtype == _FLOATS[self.name]

    def _encode(self, x: Tensor, encoded: Tensor) -> None:
        values = encoded.view(_FLOATS[self.name])
        values[:, x.shape[2] :] = 0
        values[:, : x.shape[2]].unflatten(0, x.shape[:2]).copy_(x)

    def _decode(self, encoded: Tensor, out: Tensor) -> None:
        out.copy_(encoded.view(_FLOATS[self.name])[:, : out.shape[1]])

    def _decode_sum(self, encoded: Tensor, out: Tensor) -> None:
        _path(out).sum_rows(encoded.view(_FLOATS[self.name]), out)


class BlockFormat(WireFormat):
    """Integers of ``bits`` bits with one scale per block."""

    @property
    def bits(self) -> int:
        return _BITS[self.name]

    def row_bytes(self, n: int) -> int:
        return block_quantize.payload_bytes(n, self.bits) + block_quantize.padded(-(-n // self.block) * 4)

    def _encode(self, x: Tensor, encoded: Tensor) -> None:
        _path(x).quantize(x, encoded, self.bits, self.block)

    def _decode(self, encoded: Tensor, out: Tensor) -> None:
        _path(out).dequantize(encoded, out, self.bits, self.block)

    def _decode_sum(self, encoded: Tensor, out: Tensor) -> None:
        _path(out).dequantize_sum(encoded, out, self.bits, self.block)


def _path(tensor: Tensor) -> ModuleType:
    """The module for this tensor's device. torch builds for a GPU include Triton."""
    if not tensor.is_cuda:
        return block_quantize
    from frontrunner.parallelism.runtime.wire import kernels

    return kernels
