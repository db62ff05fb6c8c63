"""Runs one engine, and compares the results of several."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError
from frontrunner.configs.units import bytes_text, number_text, seconds_text
from frontrunner.launcher.display.tables import Table
from frontrunner.launcher.display.totals import Totals
from frontrunner.launcher.errors import RunFailed
from frontrunner.launcher.ranks.local import launch
from frontrunner.launcher.ranks.request import Request
from frontrunner.run_folder import folder as run_folder
from frontrunner.run_folder.record_reader import Follower

# Only our engine writes checkpoints, and the comparison is about training.
_NO_CHECKPOINTS = [
    "checkpoint.at_end=false",
    *(f"checkpoint.{key}=null" for key in ("every_steps", "every_minutes", "keep_every")),
]


@dataclass(frozen=True)
class Result:
    """Figures of one engine's run, or the reason why there are none."""

    engine: str
    run_dir: Path
    summary: dict[str, Any] | None = None
    reason: str | None = None

    def figure(self, name: str) -> float | None:
        return self.summary[name] if self.summary else None

    def ratio(self, first: Result) -> float | None:
        """Step time relative to the first engine's."""
        own, other = self.figure("step_time_s"), first.figure("step_time_s")
        return own / other if own and other else None

    def as_json(self, first: Result) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "run_dir": str(self.run_dir),
            "reason": self.reason,
            "step_time_ratio": self.ratio(first),
            **(self.summary or {}),
        }


def run_engine(engine: str, run: str, overrides: Sequence[str], folder: Path) -> Result:
    """Train with one engine; a refusal or failure is also a result.

    Raises SpecError if the folder is in use.
    """
    run_folder.check_unused(folder)
    if engine == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        return Result(engine, folder, reason="deepspeed is not installed: pip install 'frontrunner[train]'")
    try:
        spec = Request(run, [*overrides, f"engine={engine}", *_NO_CHECKPOINTS]).resolve()
        run_folder.create(folder, spec)
        totals = Totals(folder, spec.training.steps)
        follower = Follower(folder, from_end=True)
        launch(folder, spec.world_size)
        for record in follower.new_records():
            totals.add(record)
    except SpecError as error:
        return Result(engine, folder, reason="\n".join(v.constraint for v in error.violations))
    except RunFailed as error:
        return Result(engine, folder, reason=str(error).strip().splitlines()[-1])
    steps = totals.step_records
    summary = {
        "step_time_s": totals.median("step_time_s"),
        "tokens_per_s_per_device": totals.median("tokens_per_s_per_device"),
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in steps),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
        "bytes_sent": totals.last("bytes_sent"),
    }
    return Result(engine, folder, summary)


def parts(results: Sequence[Result]) -> Iterator[Table | str]:
    """One row per engine that ran, with ratios relative to the first; then why the others did not."""
    first = results[0]
    headings = (
        "engine",
        "step time",
        "ratio",
        "tokens/s per device",
        "peak memory",
        "first loss",
        "last loss",
    )
    rows = [
        (
            result.engine,
            seconds_text(result.figure("step_time_s")),
            number_text(result.ratio(first), ".2f"),
            number_text(result.figure("tokens_per_s_per_device"), ",.1f"),
            bytes_text(result.figure("peak_memory_bytes")),
            number_text(result.figure("first_loss"), ".4f"),
            number_text(result.figure("last_loss"), ".4f"),
        )
        for result in results
        if result.summary is not None
    ]
    if rows:
        yield Table("", headings, rows)
    for result in results:
        if result.summary is None:
            yield from (f"{result.engine} did not run: {line}" for line in (result.reason or "").splitlines())
