"""Decides what follows a finished job of a run: the next segment, or nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from frontrunner.run_folder.endings import INTERRUPTED, TO_BE_CONTINUED, WRONG_REQUEST
from frontrunner.run_folder.failures import corrupted, out_of_memory
from frontrunner.run_folder.jobs import Chain, Segment

#: A retry would end the same way, or was not wanted.
_FINAL = (WRONG_REQUEST, INTERRUPTED)
_MOST_FAST_FAILURES = 2
_MOST_CORRUPTIONS = 3


@dataclass(frozen=True)
class Decision:
    """What follows a segment: another one, or nothing because of ``reason``."""

    action: Literal["next", "done", "stop"]
    reason: str = ""


def decide(chain: Chain, allowed: int) -> Decision:
    """What follows the last segment, which has ended; the time limit allows ``allowed`` segments.

    A failed segment is retried, because nodes fail and data get corrupted. After two segments in a row
    without progress, or four that found corruption, more retries would not help.
    """
    last = chain.last
    assert last is not None and last.code is not None
    if last.code == 0:
        return Decision("done", "the run is complete")
    if chain.cancelled:
        return Decision("stop", "it was cancelled")
    if last.code in _FINAL:
        return Decision("stop", f"exit code {last.code}: a retry would fail the same way")
    if reason := _hopeless(chain, last):
        return Decision("stop", reason)
    if last.number >= allowed:
        if last.code == TO_BE_CONTINUED:
            return Decision("stop", f"the time of {_all_segments(allowed)} is used up")
        return Decision("stop", f"segment {last.number} failed (exit code {last.code}), and it was the last")
    return Decision("next")


def _hopeless(chain: Chain, last: Segment) -> str:
    """Why a retry would end the same way; empty if it may not."""
    if not last.progressed and out_of_memory(last.error):
        return "memory ran out before a new step: a retry would end the same way"
    corruptions = sum(corrupted(segment.error) for segment in chain.segments)
    if corrupted(last.error) and corruptions > _MOST_CORRUPTIONS:
        return f"data were corrupted in {corruptions} segments: exclude the node that is named"
    idle = 0
    for segment in reversed(chain.segments):
        if segment.progressed:
            break
        idle += 1
    if idle >= _MOST_FAST_FAILURES:
        numbers = " and ".join(str(segment.number) for segment in chain.segments[-2:])
        return f"segments {numbers} ended without a new step (exit code {last.code})"
    return ""


def _all_segments(number: int) -> str:
    return f"all {number} segments" if number != 1 else "its only segment"
