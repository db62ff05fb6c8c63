"""Finds what goes wrong without an error: a loss that jumps, a slow rank, a router that has collapsed."""

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


class RouterWatch:
    """Finds routers that send most tokens to the same experts; reports it once.

    ``most`` is the load of an expert that every token uses: num_experts / experts_per_token.
    """

    steps, share, idle = 20, 0.8, 0.5

    def __init__(self, most: float) -> None:
        self._most = most
        self._in_a_row = 0

    def add(self, load: float, idle: float) -> str | None:
        """The warning, if any, after a step with this ``expert_load`` and these ``idle_experts``."""
        collapsed = self._most > 1 and (load > self.share * self._most or idle > self.idle)
        self._in_a_row = self._in_a_row + 1 if collapsed else 0
        if self._in_a_row != self.steps:
            return None
        return (
            f"the router has collapsed: its busiest expert gets {load:.1f} times the mean, and {idle:.0%} of "
            f"the experts get no token (last {self.steps} steps); raise model.experts.aux_loss"
        )


def with_rank(seconds: float, rank: int) -> float:
    """Encode both in one number, which is largest for the rank with the most seconds."""
    return float(round(max(0.0, seconds) * 1e6) * _RANKS + rank)


def slowest(largest: float) -> tuple[int, float]:
    """Decode the rank and seconds from the largest value of :func:`with_rank`."""
    microseconds, rank = divmod(int(largest), _RANKS)
    return rank, microseconds / 1e6
