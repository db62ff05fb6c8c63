"""Finds what goes wrong without an error: a loss that jumps, a rank that slows the others down."""

from __future__ import annotations

import math
import statistics
from collections import deque

# For normal values, 1.4826 times the median absolute deviation is the standard deviation.
_SIGMA = 1.4826
_RANKS = 1 << 20  # the rest of a float's 53 bits holds two hours in microseconds


class LossWatch:
    """Tells a jump of the loss from noise, by the median and spread of recent losses."""

    window, fewest = 50, 10
    sigmas, smallest_jump = 8.0, 0.1

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=self.window)

    def add(self, loss: float) -> str | None:
        """The warning about the next step's loss, if any."""
        if not math.isfinite(loss):
            return None  # the step is skipped, and counted elsewhere
        message = None
        if len(self._recent) >= self.fewest:
            middle = statistics.median(self._recent)
            spread = _SIGMA * statistics.median(abs(value - middle) for value in self._recent)
            if loss - middle > max(self.sigmas * spread, self.smallest_jump * abs(middle)):
                steps = len(self._recent)
                message = f"the loss jumped to {loss:.4f} from {middle:.4f}, the median of {steps} steps"
        self._recent.append(loss)
        return message


class StragglerWatch:
    """Finds ranks that are the slowest in step after step; reports each once."""

    steps, factor, share = 10, 1.3, 0.1

    def __init__(self) -> None:
        self._rank: int | None = None
        self._in_a_row = 0
        self._named: set[int] = set()

    def add(self, rank: int, busy_s: float, mean_s: float, step_s: float) -> str | None:
        """The warning, if any, after a step of ``step_s`` in which ``rank`` worked longest, ``busy_s``."""
        holds_up = busy_s > self.factor * mean_s and busy_s - mean_s > self.share * step_s
        self._in_a_row = self._in_a_row + 1 if holds_up and rank == self._rank else int(holds_up)
        self._rank = rank
        if self._in_a_row < self.steps or rank in self._named:
            return None
        self._named.add(rank)
        return (
            f"rank {rank} slows the others down: it works for {busy_s / step_s:.0%} of a step, the average "
            f"rank for {mean_s / step_s:.0%} (last {self.steps} steps)"
        )


def with_rank(seconds: float, rank: int) -> float:
    """Encode both in one number, which is largest for the rank with the most seconds."""
    return float(round(max(0.0, seconds) * 1e6) * _RANKS + rank)


def slowest(largest: float) -> tuple[int, float]:
    """Decode the rank and seconds from the largest value of :func:`with_rank`."""
    microseconds, rank = divmod(int(largest), _RANKS)
    return rank, microseconds / 1e6
