"""Checksums see every flipped bit, and bytes at another place."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from frontrunner.parallelism.runtime.integrity.checksums import digest, digests


@pytest.mark.parametrize(("dtype", "length"), [("float32", 5), ("bfloat16", 8), ("uint8", 11)])
def test_every_bit_counts(dtype: str, length: int) -> None:
    values = torch.arange(length).to(getattr(torch, dtype))
    clean, flat = digest([values]), values.view(torch.uint8)
    seen = set()
    for bit in range(8 * flat.numel()):
        flat[bit // 8] ^= 1 << bit % 8
        seen.add(int(digest([values])))
        flat[bit // 8] ^= 1 << bit % 8
    assert seen and int(clean) not in seen
    assert digest([values]) == clean


@pytest.mark.parametrize("bit", [0, 31, 63])
@pytest.mark.parametrize("word", [0, 1023, 1024, 5000])
def test_a_bit_of_a_large_tensor(word: int, bit: int) -> None:
    values = torch.randint(-(2**62), 2**62, (5001,), generator=torch.Generator().manual_seed(0))
    clean = digest([values])
    values[word] ^= torch.iinfo(torch.int64).min if bit == 63 else 1 << bit
    assert digest([values]) != clean


def test_the_place_counts() -> None:
    first, second = torch.randn(2048), torch.randn(2048)
    assert digest([first, second]) != digest([second, first])
    assert digest([first, second]) == digest([torch.cat([first, second])])


def test_rows_have_checksums_of_their_own() -> None:
    rows = torch.randn(3, 4096)
    assert digests(rows).tolist() == [int(digest([row])) for row in rows]
