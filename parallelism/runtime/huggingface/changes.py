"""How one parameter becomes tensors of transformers, and those the parameter again.

The order of rows differs in the fused projection of queries, keys and values. megatron-core's holds for each
key/value head the queries that share it, then the key, then the value; gpt_neox has the same (without
sharing), gpt2 all queries, then all keys, then all values, and llama three tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """``join`` undoes ``split``, bit by bit (of a padded vocabulary: with zeros for the rows that pad it)."""

    split: Callable[[Tensor], Sequence[Tensor]]
    join: Callable[[Sequence[Tensor]], Tensor]

    def then(self, other: Change) -> Change:
        """The same with ``other``, which makes one tensor of one, for each of the tensors."""
        return Change(
            lambda tensor: [part for each in self.split(tensor) for part in other.split(each)],
            lambda tensors: self.join([other.join([tensor]) for tensor in tensors]),
        )


SAME = Change(lambda tensor: (tensor,), lambda tensors: tensors[0])
#: [outputs, inputs] here, [inputs, outputs] in transformers' gpt2.
TRANSPOSED = Change(lambda tensor: (tensor.t(),), lambda tensors: tensors[0].t())
#: The gate of a SwiGLU is above its other half.
STACKED = Change(lambda tensor: tensor.chunk(2), lambda tensors: torch.cat(list(tensors)))


def padded(rows: int, padding: int) -> Change:
    """A vocabulary of ``rows``, here with ``padding`` rows more."""
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
