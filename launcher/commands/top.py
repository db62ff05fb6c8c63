"""``frontrunner top``: live view of runs, from their records."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.run_folder.record_reader import Follower
from frontrunner.run_folder.records import Step
from frontrunner.run_folder.state import RunState

if TYPE_CHECKING:
    from rich.console import RenderableType

    from frontrunner.launcher.runs import Runs

#: Steps that a sparkline shows.
WIDTH = 20
BLOCKS = "▁▂▃▄▅▆▇█"
_ASK_EVERY_S = 10.0
_NARROWEST = 40
#: What is shown first if not all runs fit the screen.
_INTEREST = ("failed", "running", "saving", "starting", "stopped", "cancelled", "queued", "finished")


def top(
    run_dirs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN_DIR]...", help="Run folders, or folders that contain them [default: runs]."
        ),
    ] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between refreshes.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and exit.")] = False,
) -> None:
    """Watch runs: state, progress, loss, speed and the slowest rank."""
    from frontrunner.launcher.runs import Runs

    runs = [Followed(folder) for folder in folders(run_dirs or [Path("runs")])]
    asked = Runs([run.folder for run in runs], os.environ)
    for run in runs:
        run.look(asked)
    if as_json:
        typer.echo(json.dumps({"runs": [run.as_dict() for run in runs]}))
        return
    from rich.console import Group
    from rich.live import Live

    from frontrunner.launcher.display.screen import Screen, redraws

    console = Screen()
    if once or not redraws(sys.stdout):
        console.lines(shown(runs, console.width))
        return
    asked_s = time.monotonic()
    with Live(Group(*fitting(runs, *console.size)), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            if time.monotonic() - asked_s > _ASK_EVERY_S:
                asked.refresh()
                asked_s = time.monotonic()
            for run in runs:
                run.look(asked)
            live.update(Group(*fitting(runs, *console.size)), refresh=True)


def folders(paths: Sequence[Path]) -> list[Path]:
    """Run folders, given or one level below; SpecError if there are none."""
    from frontrunner.launcher.runs import find

    found: list[Path] = []
    for path in paths:
        below = find([path])
        if not below:
            missing = "is not a folder" if path.exists() else "does not exist"
            constraint = "contains no run" if path.is_dir() else missing
            raise SpecError([Violation("RUN_DIR", str(path), constraint, "name a run folder")])
        found += below
    return list(dict.fromkeys(found))


@dataclass
class Followed:
    """The records of a run read so far; only the last steps are kept."""

    folder: Path
    planned: int | None = None
    state: RunState | None = None
    warning: str | None = None
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=200))

    def __post_init__(self) -> None:
        self.follower = Follower(self.folder)

    def look(self, runs: Runs) -> None:
        """Read new records, and judge the run's state."""
        for record in self.follower.new_records():
            if record["kind"] == "header":
                self.planned = _number(record.get("spec", {}).get("training", {}).get("steps"), int)
            elif record["kind"] == "step" and _number(record.get("step_time_s"), float):
                self.steps.append(record)
            elif record["kind"] == "warning":
                self.warning = str(record.get("message"))
        self.state = runs.state(self.folder)

    def values(self, name: str) -> list[float]:
        """Values of the last steps that have this figure."""
        return [value for each in self.steps if (value := _number(each.get(name), float)) is not None]

    def as_dict(self) -> dict[str, Any]:
        last: Any = self.steps[-1] if self.steps else {}
        state = self.state or RunState("starting")
        keys = (
            "step",
            "loss",
            "step_time_s",
            "tokens_per_s_per_device",
            "slowest_rank",
            "slowest_busy_s",
            "busy_s",
        )
        told = {"state": state.state, "reason": state.reason, "last_error": state.last_error}
        return {"run_dir": str(self.folder), **told, "next": state.next, "steps": self.planned} | {
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


def shown(runs: Sequence[Followed], width: int = 80) -> list[RenderableType]:
    """Two lines a run, which fit the width: what it is and how far, then its figures or what went wrong."""
    from rich.text import Text

    from frontrunner.configs.units import number_text, seconds_text

    lines: list[RenderableType] = []
    for run in runs:
        last = run.as_dict()
        figures = [
            f"loss {number_text(_number(last['loss'], float), '.4f')} {sparkline(run.values('loss'))}",
            f"{number_text(_number(last['tokens_per_s_per_device'], float), ',.4g')} tokens/s "
            f"{sparkline(run.values('tokens_per_s_per_device'))}",
            f"{seconds_text(_number(last['step_time_s'], float))} a step",
            *slowest_text(last),
        ]
        head = f"{last['state']}  {run.folder.name}  step {last['step'] or 0} of {run.planned or '?'}"
        lines.append(Text(head, style="bold"))
        said = last["last_error"] or last["reason"]
        if said:
            lines.append(Text(f"  {said}", style="red" if last["last_error"] else ""))
        if run.steps:
            lines += [Text(f"  {line}") for line in _filled(figures, max(width, _NARROWEST) - 2)]
    return lines


def fitting(runs: Sequence[Followed], width: int, height: int) -> list[RenderableType]:
    """As many runs as fit the screen: those that failed or run first; then how many are not shown."""
    from rich.text import Text

    lines = shown(runs, width)
    if len(lines) < height:
        return lines
    lines, left = [], sorted(runs, key=_interest)
    while left and len(lines) + len(block := shown(left[:1], width)) < height - 1:
        lines += block
        left.pop(0)
    counts = Counter(run.state.state if run.state else "starting" for run in left)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    for line in lines:
        if isinstance(line, Text):  # one that wraps would push another off the screen
            line.no_wrap, line.overflow = True, "ellipsis"
    return [*lines, Text(f"not shown: {told}; enlarge the window, or name run folders", style="dim")]


def _interest(run: Followed) -> int:
    return _INTEREST.index(run.state.state if run.state else "starting")


def _filled(parts: Sequence[str], width: int) -> list[str]:
    """The parts in as few lines as hold them whole."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines


def slowest_text(last: dict[str, Any]) -> list[str]:
    """``slowest rank 3: 1.20 s of work, mean 1.00 s``; nothing if unknown."""
    from frontrunner.configs.units import seconds_text

    rank, longest, mean = (last[key] for key in ("slowest_rank", "slowest_busy_s", "busy_s"))
    if _number(longest, float) is None or _number(mean, float) is None:
        return []
    return [f"slowest rank {rank}: {seconds_text(longest)} of work, mean {seconds_text(mean)}"]


def _number(value: object, kind: type[int] | type[float]) -> Any:
    """The value if it is a finite number."""
    fits = isinstance(value, int) if kind is int else isinstance(value, int | float)
    return value if fits and not isinstance(value, bool) else None
