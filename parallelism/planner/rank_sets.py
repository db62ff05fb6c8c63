"""Sets of ranks of many layouts at once, as arithmetic progressions from rank 0."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frontrunner.parallelism import layout
from frontrunner.parallelism.communicators import Kind
from frontrunner.parallelism.planner.candidates import Array


class RankSet(NamedTuple):
    """Ranks 0, stride, 2 stride, ... [n], and what they communicate for."""

    size: Array
    stride: Array
    kind: Kind = Kind.COMPUTING


def hops(ranks: RankSet, node: int) -> tuple[RankSet, RankSet]:
    """The groups of :meth:`Layout.hops` on nodes of ``node`` devices; the second is rank 0 alone if there is
    one."""
    size, stride = ranks.size, ranks.stride
    inside = np.minimum(size, np.ceil(node / stride))
    even = size % inside == 0
    for odd in np.flatnonzero((node % stride != 0) & (inside > 1)):
        members = tuple(range(0, int(size[odd] * stride[odd]), int(stride[odd])))
        even[odd] = len(layout.hops(members, 0, node)) == 2
    two = (inside < size) & (inside > 1) & even
    first = RankSet(np.where(two, inside, size), stride, ranks.kind)
    return first, RankSet(np.where(two, size / inside, 1), stride * inside, ranks.kind)
