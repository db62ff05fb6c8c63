"""Any range of a rank's slice of a parameter is boxes of the whole tensor."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from frontrunner.parallelism.runtime.checkpoint.pieces import boxes
from frontrunner.parallelism.runtime.sharding.parameters import Parameter


def parameter(full: tuple[int, ...], split: int | None, stacked: int, rank: int, size: int) -> Parameter:
    shape = tuple(n // size if dim == split else n for dim, n in enumerate(full))
    return Parameter(
        "p", shape, full, split, stacked, range(stacked), rank, size, None, True, False, True, False
    )


def held(whole: torch.Tensor, p: Parameter) -> torch.Tensor:
    """The rank's slice, the way tensor parallelism cuts it."""
    if p.split_dim == 0:
        parts = [matrix.chunk(p.tensor_size)[p.tensor_rank] for matrix in whole.chunk(p.stacked)]
        return torch.cat(parts)
    return whole if p.split_dim is None else whole.chunk(p.tensor_size, dim=1)[p.tensor_rank]


@given(st.data())
def test_boxes_are_the_range(data: st.DataObject) -> None:
    size, stacked = data.draw(st.sampled_from([1, 2, 4])), data.draw(st.sampled_from([1, 2]))
    rows = data.draw(st.integers(1, 5)) * size * stacked
    columns = data.draw(st.one_of(st.none(), st.integers(1, 5).map(lambda n: n * size)))
    full = (rows,) if columns is None else (rows, columns)
    split = data.draw(st.sampled_from([None, 0] if columns is None else [None, 0, 1]))
    p = parameter(full, split, stacked, data.draw(st.integers(0, size - 1)), size)
    start = data.draw(st.integers(0, p.numel))
    end = data.draw(st.integers(start, p.numel))
    whole = torch.arange(math.prod(full)).view(full)
    flat = held(whole, p).flatten()
    found, position = [], start
    for box in boxes(p, start, end):
        assert (box.start, box.end) == (position, position + math.prod(box.shape))
        position = box.end
        here = tuple(slice(o, o + n) for o, n in zip(box.offset, box.shape, strict=True))
        found.append(whole[here].flatten())
    assert position == end
    assert torch.equal(torch.cat([*found, flat[:0]]), flat[start:end])
