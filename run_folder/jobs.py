"""The jobs of one run: what was submitted, and how each ended.

``jobs.jsonl`` holds one JSON object a line and is only appended to. A run that the scheduler itself put back
in the queue (a node failed) keeps its job and segment; each end that reaches ``frontrunner continue`` closes
one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frontrunner.run_folder import files


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


def read(run_dir: Path) -> Chain:
    """The chain so far, since the last time that a user submitted it; empty where nobody has.

    A last line that was cut short is left out.
    """
    try:
        lines = (run_dir / files.JOBS).read_text(encoding="utf-8").splitlines()
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


def append(run_dir: Path, kind: str, **fields: Any) -> None:
    """Add one line, whole: what the file system may refuse (quota) raises OSError."""
    line = json.dumps({"kind": kind, "time": time.time(), **fields}) + "\n"
    with (run_dir / files.JOBS).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
