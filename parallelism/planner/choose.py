"""Chooses one layout of a search: a simple one among those that the planner cannot tell from the fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frontrunner.configs.sharding import PRESET_WIRES, SHARDING_PRESETS
from frontrunner.parallelism.planner.headroom import usable_bytes
from frontrunner.parallelism.planner.search import LEVELS, SECONDARY, TRIPLES, Ranking

#: The planner's mean error on published runs (docs/pages/results.md).
INDISTINGUISHABLE = 0.05


@dataclass(frozen=True)
class Choice:
    """``index`` of the chosen layout among the candidates, and how many were as good as the fastest."""

    index: int
    alike: int


def simplest(ranking: Ranking, fixed: Mapping[str, float] | None = None) -> Choice | None:
    """The layout with the fewest features among those within 5 % of the fastest; None if none fits.

    Of equally simple layouts the fastest is taken, or the smallest where the machine's rates are unknown.
    ``fixed`` are fields of the candidates that must have these values.
    """
    order = ranking.order
    candidates = ranking.space.candidates
    for name, value in (fixed or {}).items():
        order = order[getattr(candidates, name)[order] == value]
    if not len(order):
        return None
    if ranking.estimated.time is not None:
        speed = ranking.estimated.tokens_per_s[order]
        order = order[speed >= (1 - INDISTINGUISHABLE) * speed[0]]
    # Without the usual margin of memory only if no other is left.
    tight = ranking.estimated.memory.peak[order] > usable_bytes(ranking.estimated.workload.machine)
    best = np.lexsort((np.arange(len(order)), features(ranking)[order], tight))[0]
    return Choice(int(order[best]), len(order))


def features(ranking: Ranking) -> npt.NDArray[np.intp]:
    """For each candidate, what it has besides data parallelism with a plain preset. Quantised messages count
    twice: they change the numbers, not only the speed."""
    space, c = ranking.space, ranking.space.candidates
    plain = [triple for name, triple in SHARDING_PRESETS.items() if name not in PRESET_WIRES]
    named = [
        place != SECONDARY and tuple(LEVELS[level] for level in triple) in plain
        for place, triple in enumerate(TRIPLES)
    ]
    parts = np.array(
        [
            c.tensor > 1,
            c.pipeline > 1,
            c.virtual_stages > 1,
            c.recompute > 0,
            2 * (space.wires > 0),
            ~np.array(named)[space.triple],
        ],
        dtype=np.intp,
    )
    return np.asarray(parts.sum(axis=0))
