"""What the parts of a first day left in its folder, as plain data that can be kept and judged again."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontrunner.configs.load import read_resolved
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.first_day import parts
from frontrunner.launcher.first_day.parts import NATIVE, Part
from frontrunner.launcher.ranks.rank import TRAIN
from frontrunner.run_folder import failures, files
from frontrunner.run_folder.record_reader import read_records, steps_of
from frontrunner.run_folder.steady import steady_median

Figures = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """One part: figures of each rank that ended, why it failed if it did, and the seconds that it took.

    ``why_not`` is why the part does not apply.
    """

    ranks: tuple[Figures, ...] = ()
    failure: str | None = None
    seconds: float | None = None
    why_not: str | None = None

    @property
    def usable(self) -> bool:
        return bool(self.ranks) and self.failure is None and self.why_not is None


@dataclass(frozen=True)
class Day:
    """All parts by name, the runs that they measured, and remarks."""

    found: Mapping[str, Found]
    runs: Mapping[str, RunSpec]
    notes: Sequence[str]

    @property
    def spec(self) -> RunSpec:
        return self.runs[NATIVE]


def read(folder: Path) -> Day:
    """A first day that has ended; a part without results has failed."""
    request = parts.read(folder)
    found = {part.name: _part(part, folder / part.name) for part in request.parts}
    specs = {
        part.name: read_resolved(folder / part.name / files.SPEC)
        for part in request.parts
        if (folder / part.name / files.SPEC).exists()
    }
    return Day(found, specs, request.notes)


def _part(part: Part, folder: Path) -> Found:
    if part.why_not is not None:
        return Found(why_not=part.why_not)
    seconds = None
    if (folder / files.ENDED).exists():
        seconds = json.loads((folder / files.ENDED).read_text(encoding="utf-8"))["seconds"]
    cause = failures.first_cause(folder)
    if cause is not None:
        why = str(cause.violations[0]) if cause.violations else cause.summary
        return Found(failure=why, seconds=seconds)
    ranks = _trained(folder) if part.target == TRAIN else _results(folder)
    if not ranks:
        return Found(failure=f"it left no results; see {folder}/{files.LOGS}", seconds=seconds)
    why_not = ranks[0].get("not_applicable")
    return Found(tuple(ranks), seconds=seconds, why_not=why_not)


def _results(folder: Path) -> list[Figures]:
    """What each rank measured; empty unless all of them did."""
    world = read_resolved(folder / files.SPEC).world_size
    paths = [files.result_file(folder, rank) for rank in range(world)]
    if not all(path.exists() for path in paths):
        return []
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _trained(folder: Path) -> list[Figures]:
    """The figures of a run's steady steps, as if one rank had them all."""
    try:
        records = read_records(folder)
    except OSError:
        return []
    steps, header = steps_of(records), next((r for r in records if r["kind"] == "header"), None)
    step_time_s = steady_median(steps, "step_time_s")
    if step_time_s is None or header is None:
        return []
    return [
        {
            "device": header["device"],
            "step_time_s": step_time_s,
            "tokens_per_s_per_device": steady_median(steps, "tokens_per_s_per_device"),
            "peak_memory_bytes": max(step["peak_memory_bytes"] for step in steps),
            "losses": [step["loss"] for step in steps],
        }
    ]


def median(ranks: Sequence[Figures], *path: str | int) -> float:
    """The median over ranks of a figure at a path of keys and places."""

    def of(rank: Any) -> float:
        for key in path:
            rank = rank[key]
        return float(rank)

    return statistics.median(of(rank) for rank in ranks)
