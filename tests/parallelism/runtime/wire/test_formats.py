"""Each format against a plain reference and its promises, for any bits a float32 can hold."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from frontrunner.parallelism.runtime.wire import block_quantize
from frontrunner.parallelism.runtime.wire.formats import WireFormat, WireName, wire_format

LEAST_SCALE = 2.0**-126
FLOATS: tuple[WireName, ...] = ("float32", "bfloat16", "float16")
INTEGERS: dict[WireName, int] = {"int8": 127, "int4": 7}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BLOCK = 32

any_bits = st.lists(st.integers(0, 2**32 - 1), max_size=100)
# Most pairs of blocks then hold numbers of like size, as tensors do.
finite = st.tuples(
    st.lists(st.floats(-1, 1, width=32), max_size=100),
    st.floats(2.0**-148, 2.0**120, width=32),
).map(lambda drawn: torch.tensor(drawn[0]) * drawn[1])
integers = pytest.mark.parametrize("name", INTEGERS)


def from_bits(bits: list[int]) -> Tensor:
    return torch.from_numpy(np.array(bits, np.uint32).view(np.float32))


def reference(x: Tensor, name: WireName, block: int) -> bytes:
    """One row, an element at a time, as the module's docstring says."""
    qmax, row = INTEGERS[name], x.float().numpy()
    scales, values = [], []
    for start in range(0, len(row), block):
        part = row[start : start + block]
        if np.isfinite(part).all():
            scale = np.maximum(np.abs(part).max() / np.float32(qmax), np.float32(LEAST_SCALE))
            values += [int(np.clip(np.rint(value / scale), -qmax, qmax)) for value in part]
        else:
            scale = np.float32(np.inf)
            values += [0] * len(part)
        scales.append(scale)
    if name == "int4":
        values += [0] * (-len(values) % 32)
        payload = bytes(even + 8 | odd + 8 << 4 for even, odd in zip(values[::2], values[1::2], strict=True))
    else:
        values += [0] * (-len(values) % 16)
        payload = np.array(values, np.int8).tobytes()
    scales += [np.float32(0)] * (-len(scales) % 4)
    return payload + np.array(scales, np.float32).tobytes()


def encode(wire: WireFormat, x: Tensor) -> Tensor:
    """Into memory that is not clean."""
    rows = math.prod(x.shape[:-1])
    return wire.encode(x, torch.full((rows, wire.row_bytes(x.shape[-1])), 0xA5, dtype=torch.uint8))


def decode(wire: WireFormat, encoded: Tensor, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    out = torch.full((len(encoded), n), math.nan, dtype=dtype)
    wire.decode(encoded, n, out)
    return out


@integers
@given(bits=any_bits)
@example(bits=[])
@example(bits=[0] * 33)
@example(bits=[1, 0x80000001])  # the least denormals
@example(bits=[0x7F7FFFFF, 0xFF7FFFFF, 1])
@example(bits=[0x3F800000] * 40 + [0x7FC00000] + [0x3F800000] * 40)
@settings(deadline=None)
def test_bytes_are_those_of_the_reference(name: WireName, bits: list[int]) -> None:
    x = from_bits(bits)
    assert encode(wire_format(name, BLOCK), x).numpy().tobytes() == reference(x, name, BLOCK)


@integers
@given(x=finite)
@settings(deadline=None)
def test_error_is_half_a_scale_and_encoding_again_changes_nothing(name: WireName, x: Tensor) -> None:
    wire = wire_format(name, BLOCK)
    encoded = encode(wire, x)
    values = decode(wire, encoded, len(x))
    for part, value in zip(x.split(BLOCK), values[0].split(BLOCK), strict=True):
        scale = max(part.abs().max().item() / INTEGERS[name], LEAST_SCALE) if len(part) else 0.0
        error = (part.double() - value.double()).abs()
        assert (error <= scale / 2 + part.double().abs() * 2.0**-22).all()
    assert torch.equal(encode(wire, values), encoded)


@integers
@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_breaks_its_block_alone(name: WireName, broken: float, dtype: torch.dtype) -> None:
    wire = wire_format(name, BLOCK)
    x = torch.ones(2, 3 * BLOCK + 5, dtype=dtype)
    x[1, BLOCK + 7] = x[1, -1] = broken
    values = decode(wire, encode(wire, x), x.shape[1])
    expected = torch.ones_like(values)
    expected[1, BLOCK : 2 * BLOCK] = expected[1, 3 * BLOCK :] = math.nan
    torch.testing.assert_close(values, expected, rtol=0, atol=0, equal_nan=True)
    total = torch.empty(1, x.shape[1])
    wire.decode_sum(encode(wire, x).unsqueeze(1), total)
    assert torch.equal(total[0].isnan(), expected[1].isnan())


@integers
@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_is_encoded_as_its_float32(name: WireName, dtype: torch.dtype) -> None:
    x = (torch.randn(3, 1001) * torch.logspace(-7, 4, 3).unsqueeze(1)).to(dtype)
    wire = wire_format(name)
    encoded = encode(wire, x)
    assert encoded.numpy().tobytes() == b"".join(reference(row, name, 256) for row in x)
    assert torch.equal(decode(wire, encoded, 1001, dtype), decode(wire, encoded, 1001).to(dtype))


@pytest.mark.parametrize("name", get_args(WireName))
@pytest.mark.parametrize("n", [1, 31, 100, 4096])
def test_rows_are_those_of_strided_dims(name: WireName, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_quantize, "CHUNK", 1024)
    wire = wire_format(name, BLOCK)
    x = torch.randn(3, 4, 5, n)
    parts = x[1:, :, 2].transpose(0, 1)
    encoded = encode(wire, parts)
    assert torch.equal(encoded, torch.cat([encode(wire, row) for row in parts.reshape(8, n)]))
    wide = torch.zeros(8, n + 3)
    wire.decode(encoded, n, wide[:, :n])
    assert torch.equal(wide[:, :n], decode(wire, encoded, n))
    assert not wide[:, n:].any()


@pytest.mark.parametrize("name", get_args(WireName))
def test_sums_are_in_order(name: WireName) -> None:
    """What is small vanishes beside what is large, so that no other order gives the same."""
    wire, n = wire_format(name, BLOCK), 100
    small, large = 2.0**-10, 2.0**15
    x = torch.tensor([small, large, -large, small]).unsqueeze(1).repeat(1, n)
    encoded = encode(wire, x)
    rows = decode(wire, encoded, n)
    torch.testing.assert_close(rows, x)
    orders = [(0, 1, 2, 3), (1, 2, 0, 3)]
    totals = torch.empty(len(orders), n)
    wire.decode_sum(torch.stack([encoded[list(order)] for order in orders], 1), totals)
    for order, total in zip(orders, totals, strict=True):
        expected = rows[order[0]]
        for row in order[1:]:
            expected = expected + rows[row]
        assert torch.equal(total, expected)
    assert not torch.equal(totals[0], totals[1])


@pytest.mark.parametrize("name", FLOATS)
def test_floats_travel_as_that_type(name: WireName) -> None:
    x = torch.tensor([1 + 2.0**-9, 1e30, 1e-30, math.inf, math.nan])
    wire = wire_format(name)
    expected = x.to(getattr(torch, name)).float()
    torch.testing.assert_close(decode(wire, encode(wire, x), 5)[0], expected, rtol=0, atol=0, equal_nan=True)
    assert wire.row_bytes(5) == {"float32": 32, "bfloat16": 16, "float16": 16}[name]
    assert not encode(wire, x)[0, 5 * x.to(getattr(torch, name)).itemsize :].any()


@pytest.mark.parametrize(
    ("name", "n", "expected"),
    [
        ("int8", 256, 256 + 16),
        ("int8", 257, 272 + 16),
        ("int4", 257, 144 + 16),
        ("int4", 4 * 256 + 1, 528 + 32),
    ],
)
def test_row_bytes(name: WireName, n: int, expected: int) -> None:
    assert wire_format(name).row_bytes(n) == expected


@pytest.mark.parametrize("name", get_args(WireName))
def test_rows_may_be_empty(name: WireName) -> None:
    wire = wire_format(name)
    encoded = wire.encode(torch.empty(3, 0))
    assert encoded.shape == (3, 0)
    wire.decode(encoded, 0, torch.empty(3, 0))
    wire.decode_sum(encoded.unsqueeze(1), torch.empty(1, 0))
    assert wire.encode(torch.empty(0, 5)).shape == (0, wire.row_bytes(5))


@pytest.mark.parametrize("block", [0, 16, 48, 4096])
def test_other_blocks_are_refused(block: int) -> None:
    with pytest.raises(ValueError, match=f"block = {block}: must be a power of two from 32 to 2048"):
        wire_format("int8", block)
