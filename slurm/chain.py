"""What follows a job of a run that has ended: the next segment, or nothing more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frontrunner.run_folder.endings import INTERRUPTED, WRONG_REQUEST
from frontrunner.run_folder.jobs import Chain

#: Trying again would end alike, or was not wanted.
_FINAL = (WRONG_REQUEST, INTERRUPTED)
_MOST_FAST_FAILURES = 2


@dataclass(frozen=True)
class Decision:
    """What follows a segment: another, or nothing more because of ``reason``."""

    action: Literal["next", "done", "stop"]
    reason: str = ""


def decide(chain: Chain, allowed: int) -> Decision:
    """What follows the last segment, which has ended; ``allowed`` segments are paid for.

    A segment that failed is tried again, because nodes fail; two in a row that took the run no further
    than the ones before would go on so for as long as they are let.
    """
    last = chain.last
    assert last is not None and last.code is not None
    if last.code == 0:
        return Decision("done", "the run is complete")
    if chain.cancelled:
        return Decision("stop", "it was cancelled")
    if last.code in _FINAL:
        return Decision("stop", f"exit code {last.code}: trying again would end alike")
    idle = 0
    for segment in reversed(chain.segments):
        if segment.progressed:
            break
        idle += 1
    if idle >= _MOST_FAST_FAILURES:
        numbers = " and ".join(str(segment.number) for segment in chain.segments[-2:])
        return Decision("stop", f"segments {numbers} ended without a new step (exit code {last.code})")
    if last.number >= allowed:
        return Decision("stop", f"the time of all {allowed} segments is used up")
    return Decision("next")
