"""``frontrunner top``: live view of runs, from their records."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder import files
from frontrunner.run_folder.record_reader import Follower
from frontrunner.run_folder.records import Step

if TYPE_CHECKING:
    from rich.table import Table

#: Steps that a sparkline shows.
WIDTH = 24
#: A run is silent if its records are older than this many steps and this many seconds.
SILENT_STEPS, SILENT_S = 20, 120.0
BLOCKS = "▁▂▃▄▅▆▇█"


def top(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Run folders, or folders that contain them.")
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and exit.")] = False,
) -> None:
    """Watch runs: progress, loss, speed and the slowest rank."""
    runs = [Followed(folder) for folder in folders(run_dirs)]
    for run in runs:
        run.look()
    if as_json:
        typer.echo(json.dumps({"runs": [run.as_dict() for run in runs]}))
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if once or not sys.stdout.isatty():
        if not console.is_terminal:
            console.width = 160
        console.print(table(runs))
        return
    with Live(table(runs), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            for run in runs:
                run.look()
            live.update(table(runs), refresh=True)


def folders(paths: Sequence[Path]) -> list[Path]:
    """Run folders, given or one level below; SpecError if there are none."""
    found: list[Path] = []
    for path in paths:
        below = sorted(each.parent for each in path.glob(f"*/{files.RECORDS}"))
        if (path / files.RECORDS).exists() or (not below and files.holds_run(path)):
            below = [path]
        if not below:
            constraint = "contains no run" if path.is_dir() else "does not exist"
            raise SpecError([Violation("RUN_DIR", str(path), constraint, "name a run folder")])
        found += below
    return found


@dataclass
class Followed:
    """The records of a run read so far; only the last steps are kept."""

    folder: Path
    planned: int | None = None
    ended: bool = False
    warning: str | None = None
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=200))

    def __post_init__(self) -> None:
        self.follower = Follower(self.folder)

    def look(self) -> None:
        """Read new records."""
        for record in self.follower.new_records():
            if record["kind"] == "header":
                self.ended = False
                self.planned = _number(record.get("spec", {}).get("training", {}).get("steps"), int)
            elif record["kind"] == "step" and _number(record.get("step_time_s"), float):
                self.steps.append(record)
            elif record["kind"] == "warning":
                self.warning = str(record.get("message"))
            elif record["kind"] == "summary":
                self.ended = True

    def values(self, name: str) -> list[float]:
        """Values of the last steps that have this figure."""
        return [value for each in self.steps if (value := _number(each.get(name), float)) is not None]

    @property
    def state(self) -> str:
        """waiting (no step yet), running, silent (stopped or killed), done."""
        if self.ended:
            return "done"
        if not self.steps:
            return "waiting"
        usual = sorted(self.values("step_time_s"))[len(self.steps) // 2]
        return (
            "silent"
            if time.time() - self.follower.changed_s > max(SILENT_S, SILENT_STEPS * usual)
            else "running"
        )

    def as_dict(self) -> dict[str, object]:
        last: Any = self.steps[-1] if self.steps else {}
        keys = (
            "step",
            "loss",
            "step_time_s",
            "tokens_per_s_per_device",
            "slowest_rank",
            "slowest_busy_s",
            "busy_s",
        )
        return {"run_dir": str(self.folder), "state": self.state, "steps": self.planned} | {
            key: last.get(key) for key in keys
        }


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The last ``width`` values as a sparkline."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in shown)


def table(runs: Sequence[Followed]) -> Table:
    """One row per run."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from frontrunner.launcher.display.units import number_text, seconds_text

    made = Table(box=box.SIMPLE_HEAD)
    for column in ("run", "state", "step", "loss", "", "tokens/s", "", "step time", "slowest rank"):
        made.add_column(column)
    for run in runs:
        last: dict[str, Any] = run.as_dict()
        made.add_row(
            Text(run.folder.name),
            run.state,
            f"{last['step'] or 0}/{run.planned or '?'}",
            number_text(_number(last["loss"], float), ".4f"),
            sparkline(run.values("loss")),
            number_text(_number(last["tokens_per_s_per_device"], float), ",.1f"),
            sparkline(run.values("tokens_per_s_per_device")),
            seconds_text(_number(last["step_time_s"], float)),
            slowest_text(last),
        )
    return made


def slowest_text(last: dict[str, Any]) -> str:
    """``3: 1.20 s of work, mean 1.00 s``; a dash if unknown."""
    from frontrunner.launcher.display.units import UNKNOWN, seconds_text

    rank, longest, mean = (last[key] for key in ("slowest_rank", "slowest_busy_s", "busy_s"))
    if _number(longest, float) is None or _number(mean, float) is None:
        return UNKNOWN
    return f"{rank}: {seconds_text(longest)} of work, mean {seconds_text(mean)}"


def _number(value: object, kind: type[int] | type[float]) -> Any:
    """The value if it is a finite number."""
    fits = isinstance(value, int) if kind is int else isinstance(value, int | float)
    return value if fits and not isinstance(value, bool) else None
