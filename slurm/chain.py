"""The jobs of one run: what was submitted, how each ended, and what comes next.

``jobs.jsonl`` in the run folder holds one JSON object a line and is only appended to. A run that Slurm itself
put back in the queue (a node failed) keeps its job and segment; each end that reaches ``frontrunner
continue`` closes one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

FILE = "jobs.jsonl"
STOPPED_ON_REQUEST = 75
#: Wrong request, interrupted: trying again would end alike, or was not wanted.
_FINAL = (2, 130)
_MOST_FAST_FAILURES = 2


@dataclass(frozen=True)
class Segment:
    """One job of a run; ``code`` is None until it has ended. Steps are the run's last, before and after."""

    number: int
    job_id: str
    step_before: int
    code: int | None = None
    step_after: int | None = None
    held_s: float = 0.0
    """For how long it had its nodes; 0 until it has ended."""

    @property
    def progressed(self) -> bool:
        return self.step_after is not None and self.step_after > self.step_before


@dataclass(frozen=True)
class Chain:
    """All that ``jobs.jsonl`` says."""

    segments: tuple[Segment, ...] = ()
    cancelled: bool = False
    verdict: str | None = None
    """Why nothing follows any more; None while something may."""
    working_folder: str | None = None
    """Where the run's relative paths start; None where nothing was submitted."""

    @property
    def last(self) -> Segment | None:
        return self.segments[-1] if self.segments else None


@dataclass(frozen=True)
class Decision:
    """What follows a segment: another, or nothing more because of ``reason``."""

    action: Literal["next", "done", "stop"]
    reason: str = ""


def read(run_folder: Path) -> Chain:
    """The chain so far, since the last time that a user submitted it; empty where nobody has.

    A last line that was cut short is left out.
    """
    try:
        lines = (run_folder / FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return Chain()
    chain = Chain()
    for line in lines:
        try:
            chain = _with(chain, json.loads(line))
        except ValueError:
            continue
    return chain


def _with(chain: Chain, entry: dict[str, Any]) -> Chain:
    """The chain after one more line."""
    match entry["kind"]:
        case "begun":
            return Chain(working_folder=entry["working_folder"])
        case "submitted":
            number = len(chain.segments) + 1
            segment = Segment(number, entry["job_id"], entry["step"])
            return replace(chain, segments=(*chain.segments, segment))
        case "ended":
            last = chain.last
            if last is None or last.job_id != entry["job_id"] or last.code is not None:
                # It was submitted by a segment that could not write so any more.
                before = last.step_after or last.step_before if last else 0
                last = Segment(len(chain.segments) + 1, entry["job_id"], before)
                chain = replace(chain, segments=(*chain.segments, last))
            told = {"code": entry["code"], "step_after": entry["step"], "held_s": entry.get("held_s", 0.0)}
            ended = replace(last, **told)
            return replace(chain, segments=(*chain.segments[:-1], ended))
        case "cancelled":
            return replace(chain, cancelled=True)
        case "verdict":
            return replace(chain, verdict=entry["reason"])
    return chain


def append(run_folder: Path, kind: str, **fields: Any) -> None:
    """Add one line, whole: what the file system may refuse (quota) raises OSError."""
    line = json.dumps({"kind": kind, "time": time.time(), **fields}) + "\n"
    with (run_folder / FILE).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


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
