"""How many communicators the fullest rank has, for many layouts at once.

:mod:`frontrunner.parallelism.communicators` lists a rank's sets of ranks one by one. Rank 0 is on the first
stage, and has them all. Its sets are arithmetic progressions from 0: equal if sizes and strides are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from frontrunner.parallelism.layout import hops
from frontrunner.parallelism.planner.candidates import Array, Candidates, Mask, Workload


class _Set(NamedTuple):
    """Ranks 0, stride, 2 stride, ... [n]; ``beside`` the computing stream or not."""

    size: Array
    stride: Array
    beside: bool


def communicators(workload: Workload, c: Candidates) -> Array:
    """Communicators of more than one rank [n], on rank 0.

    If nodes cut only some blocks of ranks, a rank of these has up to three more.
    """
    found: list[_Set] = []
    count = np.zeros(len(c))
    for ranks in _sets(workload, c):
        known: Mask = ranks.size == 1
        for other in found:
            if other.beside == ranks.beside or workload.profile.shares_communicators:
                known = known | ((other.size == ranks.size) & (other.stride == ranks.stride))
        count += ~known
        found.append(ranks)
    return count


def _sets(workload: Workload, c: Candidates) -> Iterator[_Set]:
    one = np.ones(len(c))
    stage = c.tensor * c.data  # ranks
    yield _Set(stage * c.pipeline, one, False)
    yield _Set(c.tensor, one, False)
    yield _Set(c.pipeline, stage, False)
    if workload.model.tie_embeddings:
        yield _Set(np.minimum(c.pipeline, 2), stage * (c.pipeline - 1), False)
    yield _Set(np.maximum(1, c.tensor // workload.model.num_kv_heads), one, False)
    yield _Set(c.weights, c.tensor, False)
    yield _Set(np.where(c.secondary < c.weights, c.secondary, 1), c.tensor, False)
    network = _Set(c.optimizer / c.gradients, c.tensor * c.gradients, True)
    replicas = _Set(c.data / c.optimizer, c.tensor * c.optimizer, True)
    for reduced in (_Set(c.gradients, c.tensor, True), network, replicas):
        yield from _hops(reduced, workload.machine.devices_per_node)
    yield _Set(c.gradients / c.weights, c.tensor * c.weights, True)
    yield network
    yield replicas


def _hops(ranks: _Set, node: int) -> tuple[_Set, _Set]:
    """A reduction's groups, as :meth:`Layout.hops` has them; the second is rank 0 alone if there is one."""
    size, stride = ranks.size, ranks.stride
    inside = np.minimum(size, np.ceil(node / stride))
    even = size % inside == 0
    for odd in np.flatnonzero((node % stride != 0) & (inside > 1)):
        members = tuple(range(0, int(size[odd] * stride[odd]), int(stride[odd])))
        even[odd] = len(hops(members, 0, node)) == 2
    two = (inside < size) & (inside > 1) & even
    first = _Set(np.where(two, inside, size), stride, True)
    return first, _Set(np.where(two, size / inside, 1), stride * inside, True)
