"""How many communicators the fullest rank has, for many layouts at once.

:mod:`frontrunner.parallelism.communicators` lists a rank's sets of ranks one by one. Rank 0 is on the first
stage, and has them all. Its sets are arithmetic progressions from 0: equal if sizes and strides are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frontrunner.parallelism.communicators import Kind
from frontrunner.parallelism.planner.candidates import Array, Candidates, Mask, Workload
from frontrunner.parallelism.planner.expert_hops import expert_sets
from frontrunner.parallelism.planner.rank_sets import RankSet, hops


def communicators(workload: Workload, c: Candidates) -> Array:
    """Communicators of more than one rank [n], on rank 0.

    If nodes cut only some blocks of ranks, a rank of these has up to three more.
    """
    found: list[RankSet] = []
    count = np.zeros(len(c))
    for ranks in _sets(workload, c):
        if workload.profile.shares_communicators and ranks.kind is Kind.BESIDE:
            ranks = ranks._replace(kind=Kind.COMPUTING)
        known: Mask = ranks.size == 1
        for other in found:
            if other.kind is ranks.kind:
                known = known | ((other.size == ranks.size) & (other.stride == ranks.stride))
        count += ~known
        found.append(ranks)
    return count


def _sets(workload: Workload, c: Candidates) -> Iterator[RankSet]:
    one = np.ones(len(c))
    stage = c.tensor * c.data  # ranks
    yield RankSet(stage * c.pipeline, one)
    yield RankSet(c.tensor, one)
    yield RankSet(c.pipeline, stage)
    if workload.model.tie_embeddings:
        yield RankSet(np.minimum(c.pipeline, 2), stage * (c.pipeline - 1))
    yield RankSet(np.maximum(1, c.tensor // workload.model.num_kv_heads), one)
    yield from _sharding(workload, c, c.tensor)
    if workload.model.experts and np.any(c.expert > 1):
        yield from expert_sets(workload, c)
        own = c.of_experts()
        for ranks in _sharding(workload, own, c.tensor * c.expert, Kind.BESIDE_OF_EXPERTS):
            yield ranks._replace(size=np.where(c.expert > 1, ranks.size, 1))


def _sharding(
    workload: Workload, c: Candidates, apart: Array, beside: Kind = Kind.BESIDE
) -> Iterator[RankSet]:
    """The sets that cut and reduce parameters whose holders are ``apart`` ranks from each other.

    ``beside`` is the kind of those that run beside computing.
    """
    yield RankSet(c.weights, apart)
    yield RankSet(np.where(c.secondary < c.weights, c.secondary, 1), apart)
    network = RankSet(c.optimizer / c.gradients, apart * c.gradients, beside)
    replicas = RankSet(c.data / c.optimizer, apart * c.optimizer, beside)
    for reduced in (RankSet(c.gradients, apart, beside), network, replicas):
        yield from hops(reduced, workload.machine.devices_per_node)
    yield RankSet(c.gradients / c.weights, apart * c.weights, beside)
    yield network
    yield replicas
