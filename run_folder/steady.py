"""Which steps of a run are warm-up: the one rule for all figures.

The first step of each start is warm-up. So are the steps after it while they are more than a tenth slower
than the median of the start's second half, at most ten in total: caches fill, connections are made, the
allocator grows. The last step is never warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from frontrunner.run_folder.records import Step

#: A step this much slower than the median is still warm-up.
WARM_UP_SLOWER = 1.1
LONGEST_WARM_UP = 10


def warm_up_steps(times_s: Sequence[float]) -> int:
    """Number of warm-up steps; ``times_s`` are the step times of one start, in order."""
    count = len(times_s)
    if count < 2:
        return 0
    usual = statistics.median(times_s[count // 2 :])
    warm = 1
    while warm < min(LONGEST_WARM_UP, count - 1) and times_s[warm] > WARM_UP_SLOWER * usual:
        warm += 1
    return warm


def steady(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps of one start without its warm-up; steps without a time are skipped."""
    timed = [step for step in steps if step.get("step_time_s")]
    return timed[warm_up_steps([step["step_time_s"] for step in timed]) :]


def steady_median(steps: Sequence[Step], figure: str) -> float | None:
    """The median of a figure over the steady steps of one start; None if no step has it."""
    values = [value for step in steady(steps) if isinstance(value := step.get(figure), int | float)]
    return float(statistics.median(values)) if values else None
