"""Makes the folder of a first day, starts its ranks on this machine, and reads what they left."""

from __future__ import annotations

from pathlib import Path

from frontrunner.launcher.display.terminal import say
from frontrunner.launcher.first_day import parts, supervise
from frontrunner.launcher.first_day.found import Figures, read
from frontrunner.launcher.first_day.judge import judge
from frontrunner.launcher.first_day.machine import measured_machine
from frontrunner.launcher.first_day.runs import Day, plan
from frontrunner.launcher.ranks.local import launch, require_torch
from frontrunner.run_folder import files
from frontrunner.run_folder import folder as run_folder

__all__ = ["NAME", "create", "keep_machine", "measure_here", "plan", "report"]
NAME = "first-day"


def create(folder: Path, day: Day) -> None:
    """The folder, and in it one of each part that is started."""
    run_folder.create(folder, day.spec)
    for part in day.parts:
        if part.why_not is None:
            run_folder.create(folder / part.name, day.runs[part.name])
    parts.write(folder, day.parts, day.notes)


def measure_here(day: Day) -> Path:
    """Run all parts on this machine; returns the folder. A line on stderr tells the end of each."""
    require_torch()
    folder = run_folder.dated(NAME)
    create(folder, day)
    say(f"measuring {day.spec.world_size} devices in up to ten minutes; folder {folder}")
    waiting = [part.name for part in day.parts if part.why_not is None]

    def tell_ended() -> None:
        while waiting and (folder / waiting[0] / files.ENDED).exists():
            say(f"  {waiting.pop(0)} ended")

    launch(folder, day.spec.world_size, target=supervise.TARGET, on_tick=tell_ended)
    return folder


def keep_machine(folder: Path) -> None:
    """Write the machine file with the measured rates, if they were measured."""
    day = read(folder)
    found = measured_machine(day, judge(day), folder.name)
    if found is not None:
        text, at_bounds = found
        (folder / files.MACHINE).write_text(text, encoding="utf-8")
        for key in at_bounds:
            say(f"{key} is at its bound: the step is not as fast as the rates let expect")


def report(folder: Path) -> Figures:
    """The object of ``--json``."""
    answer = judge(read(folder))
    machine = folder / files.MACHINE
    outputs = [str(machine)] if machine.exists() else []
    return answer | {"outputs": outputs, "folder": str(folder)}
