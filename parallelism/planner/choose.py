"""Groups the layouts of a search by what the planner cannot tell apart, and chooses simple ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from frontrunner.configs.sharding import PRESET_WIRES, SHARDING_PRESETS
from frontrunner.parallelism.planner.candidates import Index
from frontrunner.parallelism.planner.headroom import usable_bytes
from frontrunner.parallelism.planner.search import LEVELS, SECONDARY, TRIPLES, Ranking
from frontrunner.parallelism.planner.uncertainty import RELATIVE_INTERVAL_PCT, RELATIVE_MEDIAN_PCT


@dataclass(frozen=True)
class Choice:
    """``index`` of the chosen layout among the candidates, and of how many it is the simplest."""

    index: int
    alike: int


def groups(ranking: Ranking, order: Index | None = None) -> Iterator[Index]:
    """Layouts that cannot be told apart, each group in the order of the ranking, fastest group first.

    In a group the fastest is ahead of all others by :data:`RELATIVE_INTERVAL_PCT` at most. Without rates of
    the machine all layouts are one group. ``order`` are some of the ranking's layouts (default: all).
    """
    order = ranking.order if order is None else order
    if ranking.estimated.time is None:
        if len(order):
            yield order
        return
    slowness = 1 / ranking.estimated.tokens_per_s[order]
    begin = 0
    while begin < len(order):
        last = slowness[begin] * (1 + RELATIVE_INTERVAL_PCT / 100)
        end = int(np.searchsorted(slowness, last, side="right"))
        yield order[begin:end]
        begin = end


def simplest_of(ranking: Ranking, group: Index) -> Choice:
    """The simplest layout of a group, among those at most :data:`RELATIVE_MEDIAN_PCT` slower than the best.

    Simplicity is not free where it is predicted to cost more than the usual error.

    Layouts that leave the usual margin of memory come first, then those without quantised messages (they
    change the numbers), with the fewest pipeline stages, the fewest virtual stages, the fewest other
    features, and the most memory left.
    """
    if ranking.estimated.time is not None:
        speed = ranking.estimated.tokens_per_s[group]
        group = group[speed >= speed[0] / (1 + RELATIVE_MEDIAN_PCT / 100)]
    c, peak = ranking.space.candidates, ranking.estimated.memory.peak[group]
    keys = (
        peak > usable_bytes(ranking.estimated.workload.machine),
        ranking.space.wires[group] > 0,
        c.pipeline[group],
        c.virtual_stages[group],
        features(ranking, group),
        peak,
    )
    return Choice(int(group[np.lexsort(keys[::-1])[0]]), len(group))


def simplest(ranking: Ranking, fixed: Mapping[str, float] | None = None) -> Choice | None:
    """The simplest layout of the first group; None if none fits.

    ``fixed`` are fields of the candidates that must have these values.
    """
    order = ranking.order
    candidates = ranking.space.candidates
    for name, value in (fixed or {}).items():
        order = order[getattr(candidates, name)[order] == value]
    first = next(groups(ranking, order), None)
    return None if first is None else simplest_of(ranking, first)


def features(ranking: Ranking, chosen: Index) -> npt.NDArray[np.intp]:
    """What each of the chosen layouts has besides data parallelism with a plain preset."""
    space, c = ranking.space, ranking.space.candidates
    plain = [triple for name, triple in SHARDING_PRESETS.items() if name not in PRESET_WIRES]
    named = [
        place != SECONDARY and tuple(LEVELS[level] for level in triple) in plain
        for place, triple in enumerate(TRIPLES)
    ]
    parts = (
        c.tensor[chosen] > 1,
        c.pipeline[chosen] > 1,
        c.virtual_stages[chosen] > 1,
        c.recompute[chosen] > 0,
        c.expert[chosen] > 1,
        c.flat_dispatch[chosen] > 0,
        space.wires[chosen] > 0,
        ~np.array(named)[space.triple[chosen]],
    )
    return np.asarray(np.sum(parts, axis=0, dtype=np.intp))
