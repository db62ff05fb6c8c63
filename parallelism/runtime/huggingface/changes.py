"""Converts one parameter to tensors of transformers, and back.

The fused projection of queries, keys and values differs in its order of rows. Here each key and value head
follows its queries. gpt_neox has the same order (without sharing), gpt2 has all queries, then all keys, then
all values, and llama has three tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """``join`` undoes ``split`` bit for bit, with zeros for the padding rows of a vocabulary."""

    split: Callable[[Tensor], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor]], Tensor]

    def then(self, other: Change) -> Change:
        """This change, followed by ``other`` (one tensor to one tensor) on each of the tensors."""
        return Change(
            lambda tensor: [part for each in self.split(tensor) for part in other.split(each)],
            lambda tensors: self.join([other.join([tensor]) for tensor in tensors]),
        )


SAME = Change(lambda tensor: (tensor,), lambda tensors: tensors[0])
#: [outputs, inputs] here, [inputs, outputs] in transformers' gpt2.
TRANSPOSED = Change(lambda tensor: (tensor.t(),), lambda tensors: tensors[0].t())


def stacked(count: int) -> Change:
    """``count`` matrices below one another: a SwiGLU's gate and its other half, or experts."""
    return Change(lambda tensor: tensor.chunk(count), lambda tensors: torch.cat(list(tensors)))


def padded(rows: int, padding: int) -> Change:
    """A vocabulary of ``rows``, which has ``padding`` more rows here."""
    return Change(
        lambda tensor: (tensor[:rows],), lambda tensors: F.pad(tensors[0], (0, 0, 0, padding)).contiguous()
    )


def three(heads: int, groups: int, head_dim: int) -> Change:
    """The fused projection (weight or bias) as queries, keys and values; ``groups`` key/value heads."""
    shared = heads // groups

    def split(tensor: Tensor) -> list[Tensor]:
        rows = tensor.unflatten(0, (groups, shared + 2, head_dim))
        parts = rows[:, :shared], rows[:, shared : shared + 1], rows[:, shared + 1 :]
        return [part.flatten(0, 2) for part in parts]

    def join(tensors: Sequence[Tensor]) -> Tensor:
        parts = [
            tensor.unflatten(0, (groups, count, head_dim))
            for tensor, count in zip(tensors, (shared, 1, 1), strict=True)
        ]
        return torch.cat(parts, dim=1).flatten(0, 2)

    return Change(split, join)


def queries_first(heads: int, head_dim: int) -> Change:
    """The fused projection as one tensor: all queries, all keys, all values."""
    apart = three(heads, heads, head_dim)
    return Change(
        lambda tensor: (torch.cat(list(apart.split(tensor))),),
        lambda tensors: apart.join(tensors[0].chunk(3)),
    )
