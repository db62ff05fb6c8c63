"""Whether a batch is too small for a machine: devices wait, or have too little to compute at once."""

from __future__ import annotations

from dataclasses import dataclass

from frontrunner.parallelism.planner.headroom import with_margin
from frontrunner.parallelism.planner.search import Ranking, search

#: A batch starves the machine if one ``LARGER`` times as large gives more than ``GAIN`` times the speed:
#: a third of the node-hours, or more, is then paid for the small batch.
LARGER = 8
GAIN = 1.5
#: A larger batch spreads what a step pays once, and allows larger matrix products, whose rates differ less
#: than ``GAIN``. Where computing takes this share of a step, it is not worth another search.
_BUSY = 0.9


@dataclass(frozen=True)
class Starved:
    """Tokens/s of a device with the best layout of this batch, and of one that is ``LARGER`` times it."""

    global_batch_size: int
    speed: float
    larger_speed: float

    @property
    def gain(self) -> float:
        return self.larger_speed / self.speed


def starved(ranking: Ranking, nodes: int, global_batch_size: int, margin: float) -> Starved | None:
    """What a larger batch would give on the same nodes, if that is more than ``GAIN`` times the speed.

    ``ranking`` is that of the batch. Layouts with quantised messages are not tried for the larger one: they
    gain little where the batch is large, and cost two thirds of the search.
    """
    time = ranking.estimated.time
    if time is None or not len(ranking.order):
        return None
    best = ranking.order[0]
    if (time.compute + time.recompute)[best] >= _BUSY * time.total[best]:
        return None
    workload, larger = ranking.estimated.workload, LARGER * global_batch_size
    other, _ = with_margin(search(workload, nodes, larger, ranking.space.precision, plain=True), margin)
    if not len(other.order):
        return None
    speeds = [float(each.estimated.tokens_per_s[each.order[0]]) for each in (ranking, other)]
    return Starved(larger, *speeds) if speeds[1] > GAIN * speeds[0] else None
