"""What `top` shows of more runs than its screen holds."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, Group

from frontrunner.launcher.commands.top import Followed, fitting
from frontrunner.run_folder.state import RunState, State


def followed(tmp_path: Path, *states: State) -> list[Followed]:
    return [
        Followed(tmp_path / f"run-{number}", state=RunState(state, reason="because " * 20))
        for number, state in enumerate(states)
    ]


def screen(runs: list[Followed], height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=80, height=height)
    console.print(Group(*fitting(runs, 80, height)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_what_matters_is_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    runs = followed(tmp_path, "finished", "queued", "running", "finished", "failed")
    lines = screen(runs, 6)
    assert [line.split()[0] for line in lines] == ["failed", "because", "running", "because", "not"]
    assert lines[-1].startswith("not shown: 1 queued, 2 finished; ")
    assert all(len(line) <= 80 for line in lines)


def test_all_are_shown_in_their_order_where_they_fit(tmp_path: Path) -> None:
    runs = followed(tmp_path, "finished", "failed")
    heads = [line for line in screen(runs, 50) if "run-" in line]
    assert [line.split()[0] for line in heads] == ["finished", "failed"]
