"""The last records of a run that another process, on another machine, may be writing."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frontrunner.parallelism.runtime.records import FILE

_TAIL_BYTES = 256 * 1024
_RECENT = 20


def last_records(run_folder: Path) -> list[dict[str, Any]]:
    """The whole records in the file's last part, oldest first; none where there is no file."""
    try:
        with (run_folder / FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    lines = data.split(b"\n")
    whole = lines[1 if size > _TAIL_BYTES else 0 : -1]
    return list(_parsed(whole))


def last_step(run_folder: Path) -> int:
    """The furthest step that the run has taken; 0 before the first."""
    return max((r["step"] for r in last_records(run_folder) if r["kind"] == "step"), default=0)


def progress(run_folder: Path, steps: int) -> dict[str, Any]:
    """``step``, ``loss``, ``tokens_per_s_per_device``, ``step_time_s``, ``eta_s``; None for the unknown."""
    taken = [r for r in last_records(run_folder) if r["kind"] == "step"]
    last = taken[-1] if taken else {}
    times = [r["step_time_s"] for r in taken[-_RECENT:] if r.get("step_time_s") is not None]
    each = statistics.median(times) if times else None
    left = steps - last["step"] if last else None
    return {
        "step": last.get("step", 0),
        "steps": steps,
        "loss": last.get("loss"),
        "tokens_per_s_per_device": last.get("tokens_per_s_per_device"),
        "step_time_s": each,
        "eta_s": each * left if each is not None and left is not None else None,
    }


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # a file system that lost a block
            continue
        if isinstance(record, dict) and "kind" in record:
            yield record
