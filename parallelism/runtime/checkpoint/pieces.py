"""A rank's state as boxes of the whole model's tensors.

A rank's optimizer shard is a range of a shard unit's flat order, which can cut a parameter anywhere, and the
rank only holds a tensor-parallel slice of each parameter. Each range is a few boxes of the whole tensor: the
rest of a row, whole rows, the start of a row. Saved boxes can be read as other boxes, in any other layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from frontrunner.parallelism.runtime.sharding.optimizer import ShardedAdamW
from frontrunner.parallelism.runtime.sharding.parameters import Parameter, row_ranges

WEIGHTS, FIRST_MOMENT, SECOND_MOMENT = "weights", "first_moment", "second_moment"


class Piece(NamedTuple):
    """A box of the tensor ``name`` of ``shape``; its ``values`` start at ``offset``.

    ``values`` is contiguous, has the box's shape, and may be a view of the state itself.
    """

    name: str
    shape: tuple[int, ...]
    offset: tuple[int, ...]
    values: torch.Tensor


class Box(NamedTuple):
    """A box of a whole parameter, and the range of the rank's flat slice that holds it."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    end: int


def boxes(parameter: Parameter, start: int, end: int) -> Iterator[Box]:
    """The boxes that cover elements ``start`` to ``end`` of a rank's slice of a parameter."""
    columns = parameter.shape[1] if len(parameter.shape) > 1 else 1
    assert len(parameter.shape) <= 2
    first_column = parameter.tensor_rank * columns if parameter.split_dim == 1 else 0
    local_row = 0
    for first, last in row_ranges(parameter):
        begin = max(start, local_row * columns)
        stop = min(end, (local_row + last - first) * columns)
        while begin < stop:
            row, column = divmod(begin, columns)
            if column or stop - begin < columns:
                rows, width = 1, min(columns - column, stop - begin)
            else:
                rows, width = (stop - begin) // columns, columns
            offset = (first + row - local_row, first_column + column)
            dims = len(parameter.shape)
            yield Box(offset[:dims], (rows, width)[:dims], begin, begin + rows * width)
            begin += rows * width
        local_row += last - first


def model_pieces(optimizer: ShardedAdamW, saving: bool, moments: bool = True) -> list[Piece]:
    """This rank's master weights and moments, as views.

    ``saving``: only what this rank writes. Ranks with equal optimizer shards write a part each. If all
    tensor ranks or two stages hold a parameter, one of them writes it.
    """
    found: list[Piece] = []
    for unit, (first, second) in zip(optimizer.engine.units, optimizer.moments, strict=True):
        mine, layout = unit.geometry.optimizer, unit.groups.layout
        replicas = layout.holders // layout.optimizer
        part, parts = (unit.groups.position.replica, replicas) if saving else (0, 1)
        low, high = (mine.start + mine.size * index // parts for index in (part, part + 1))
        kinds = [(WEIGHTS, unit.master)]
        kinds += [(FIRST_MOMENT, first), (SECOND_MOMENT, second)] if moments else []
        for key, parameter in unit.parameters.items():
            if saving and not parameter.counted:
                continue
            base = unit.offsets[key]
            start, end = max(low - base, 0), min(high - base, parameter.numel)
            for box in boxes(parameter, start, end) if start < end else ():
                here = slice(base + box.start - mine.start, base + box.end - mine.start)
                found += [
                    Piece(
                        f"{kind}/{parameter.name}",
                        parameter.full_shape,
                        box.offset,
                        flat[here].view(box.shape),
                    )
                    for kind, flat in kinds
                ]
    return found
