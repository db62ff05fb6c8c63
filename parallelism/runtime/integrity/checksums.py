"""Exact checksums of raw bytes, computed on the tensors' device.

A tensor's bytes are read as 8-byte words. Rows of 1024 words are summed modulo 2^64, and the sums are added
with odd weights by their place. A single flipped bit changes a word by a power of two and the checksum by an
odd multiple of it, which is never zero modulo 2^64: one flip is always found. Exchanged rows are found too,
exchanged words of one row are not.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

_WORD_BYTES = 8
_ROW_WORDS = 1024


def digest(tensors: Iterable[Tensor]) -> Tensor:
    """One checksum of all ``tensors`` in order, int64 [] on their device; there is at least one.

    They are contiguous, of any type, and start at a multiple of 8 bytes.
    """
    sums = torch.cat([part for tensor in tensors for part in _row_sums(tensor)])
    return (sums * _weights(sums)).sum()


def digests(rows: Tensor) -> Tensor:
    """A checksum of each of n rows, int64 [n]; ``rows`` [n, m] is contiguous, its rows are whole words."""
    words = rows.view(torch.int64)
    whole = words.size(1) // _ROW_WORDS
    sums = [words[:, : whole * _ROW_WORDS].unflatten(1, (whole, _ROW_WORDS)).sum(2)] if whole else []
    if words.size(1) > whole * _ROW_WORDS:
        sums.append(words[:, whole * _ROW_WORDS :].sum(1, keepdim=True))
    joined = torch.cat(sums, 1)
    return (joined * _weights(joined[0])).sum(1)


def _row_sums(tensor: Tensor) -> list[Tensor]:
    flat = tensor.detach().view(-1).view(torch.uint8)
    end = flat.numel() // _WORD_BYTES * _WORD_BYTES
    words = flat[:end].view(torch.int64)
    whole = words.numel() // _ROW_WORDS * _ROW_WORDS
    sums = [words[:whole].view(-1, _ROW_WORDS).sum(1)] if whole else []
    if whole < words.numel():
        sums.append(words[whole:].sum(0, keepdim=True))
    if end < flat.numel():
        sums.append(pad(flat[end:], (0, end + _WORD_BYTES - flat.numel())).view(torch.int64))
    return sums


def _weights(sums: Tensor) -> Tensor:
    return torch.arange(1, 2 * sums.numel(), 2, device=sums.device)
