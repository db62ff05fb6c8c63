"""Which steps of a run are warm-up: the one rule for all figures.

The first step of each start is warm-up, and so are the steps after it that are more than a tenth slower than
the median of the start's second half, ten in all at most: caches fill, connections are made, the allocator
grows. The last step is never warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from frontrunner.run_folder.records import Step

#: How much slower than usual a step at the start is that still warms up.
WARM_UP_SLOWER = 1.1
LONGEST_WARM_UP = 10


def warm_up_steps(times_s: Sequence[float]) -> int:
    """How many steps at the beginning are warm-up; ``times_s`` are those of one start, in order."""
    count = len(times_s)
    if count < 2:
        return 0
    usual = statistics.median(times_s[count // 2 :])
    warm = 1
    while warm < min(LONGEST_WARM_UP, count - 1) and times_s[warm] > WARM_UP_SLOWER * usual:
        warm += 1
    return warm


def steady(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of one start without its warm-up; those without a time do not count."""
    timed = [step for step in steps if step.get("step_time_s")]
    return timed[warm_up_steps([step["step_time_s"] for step in timed]) :]


def steady_median(steps: Sequence[Step], figure: str) -> float | None:
    """The median of a figure over the steady steps of one start; None where none has it."""
    values = [value for step in steady(steps) if isinstance(value := step.get(figure), int | float)]
    return float(statistics.median(values)) if values else None
