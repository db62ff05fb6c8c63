"""The jobs of one run: submissions and how each ended.

``jobs.jsonl`` has one JSON object per line and is append-only. If the scheduler itself requeues a run (a node
failed), the job and segment stay the same. Each call of ``frontrunner continue`` closes one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frontrunner.configs.plain_files import not_followed, read_plain
from frontrunner.run_folder import files

_LARGEST = 2**24


@dataclass(frozen=True)
class Segment:
    """One job of a run; ``code`` is None until it has ended. Steps: the run's last step before and after."""

    number: int
    job_id: str
    step_before: int
    code: int | None = None
    step_after: int | None = None
    held_s: float = 0.0
    """How long it held its nodes; 0 until it has ended."""
    error: str = ""
    """Why its ranks failed, in one line; empty if they did not, or wrote nothing."""

    @property
    def progressed(self) -> bool:
        return self.step_after is not None and self.step_after > self.step_before


@dataclass(frozen=True)
class Chain:
    """The contents of ``jobs.jsonl``."""

    segments: tuple[Segment, ...] = ()
    cancelled: bool = False
    verdict: str | None = None
    """Why no further segment follows; None while one may."""
    working_folder: str | None = None
    """Base of the run's relative paths; None if nothing was submitted."""
    name: str | None = None
    """The run's name when it was submitted, and the steps it asked for; None in old folders."""
    steps: int | None = None
    allowed: int | None = None
    """Segments that its time limit allows."""
    begun_s: float = 0.0
    """When a user submitted it, in seconds since the epoch."""

    @property
    def last(self) -> Segment | None:
        return self.segments[-1] if self.segments else None


def read(run_dir: Path) -> Chain:
    """The chain since a user last submitted it; empty if never submitted.

    Invalid lines are skipped. Raises OSError for a file that cannot be read.
    """
    try:
        data = read_plain(run_dir / files.JOBS, _LARGEST)
    except FileNotFoundError:
        return Chain()
    chain = Chain()
    for line in data.decode(errors="replace").splitlines():
        try:
            chain = _with(chain, json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return chain


def _with(chain: Chain, entry: dict[str, Any]) -> Chain:
    """The chain after one more line."""
    match entry["kind"]:
        case "begun":
            return Chain(
                working_folder=entry["working_folder"],
                name=entry.get("name"),
                steps=entry.get("steps"),
                allowed=entry.get("segments"),
                begun_s=entry.get("time", 0.0),
            )
        case "submitted":
            number = len(chain.segments) + 1
            segment = Segment(number, entry["job_id"], entry["step"])
            return replace(chain, segments=(*chain.segments, segment))
        case "ended":
            last = chain.last
            if last is None or last.job_id != entry["job_id"] or last.code is not None:
                # It was submitted by a segment that could no longer record it.
                before = last.step_after or last.step_before if last else 0
                last = Segment(len(chain.segments) + 1, entry["job_id"], before)
                chain = replace(chain, segments=(*chain.segments, last))
            ended = replace(
                last,
                code=entry["code"],
                step_after=entry["step"],
                held_s=entry.get("held_s", 0.0),
                error=entry.get("error", ""),
            )
            return replace(chain, segments=(*chain.segments[:-1], ended))
        case "cancelled":
            return replace(chain, cancelled=True)
        case "verdict":
            return replace(chain, verdict=entry["reason"])
    return chain


def append(run_dir: Path, kind: str, **fields: Any) -> None:
    """Append one whole line; raises OSError if the file system refuses it (quota)."""
    line = json.dumps({"kind": kind, "time": time.time(), **fields}) + "\n"
    with open(run_dir / files.JOBS, "a", encoding="utf-8", opener=not_followed) as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
