"""What `train` shows while it runs and at its end, and the table of `compare`, at some widths."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any, cast

import faulty_ranks
import pytest
from rich.console import RenderableType

from frontrunner.launcher.comparison import Result, parts
from frontrunner.launcher.display.run_view import LiveView
from frontrunner.launcher.display.screen import Screen, redraws
from frontrunner.launcher.display.tables import folded
from frontrunner.launcher.display.totals import Totals
from support.specs import run_spec

WIDTHS = (60, 80, 120)
#: The figures of a long run at high speed: as wide as they become.
_LARGE = {"step_time_s": 123.4, "tokens_per_s_per_device": 1234567.8}
_UNIT = re.compile(r"\d$"), re.compile(r"^\s*(%|[KMG]iB|B|[MGTP]?FLOP/s|m?s)\b")


def watched(folder: Path, steps: int = 10) -> Totals:
    """The totals of a run whose last step is ``steps``."""
    records: list[Any] = []
    faulty_ranks.write_records(run_spec(devices=3), folder, records.append, 10)
    totals = Totals(folder / "run", steps)
    for record in records:
        large = (
            {"step": record["step"] + steps - 10, **_LARGE} if record["kind"] == "step" and steps > 10 else {}
        )
        totals.add(record | large)
    return totals


def shown(width: int, *what: RenderableType) -> list[str]:
    """The lines on a terminal of that width."""
    screen = Screen(io.StringIO())
    screen.width, screen.soft_wrap = width, False
    for each in what:
        screen.print(each, soft_wrap=False)
    return cast(io.StringIO, screen.file).getvalue().splitlines()


def check(lines: list[str], width: int) -> str:
    """Nothing is cut, too long or broken within a figure; the text without blanks."""
    assert "…" not in "".join(lines) and "..." not in "".join(lines)
    assert [line for line in lines if len(line.rstrip()) > width] == []
    cells = [re.split(r"\s{2,}", line.rstrip())[-1] for line in lines]
    number, unit = _UNIT
    assert [
        pair
        for pair in zip(cells, cells[1:], strict=False)
        if number.search(pair[0]) and unit.search(pair[1])
    ] == []
    return re.sub(r"\s+", "", "".join(lines))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("steps", [10, 1_000_000])
def test_the_view_of_training(tmp_path: Path, width: int, steps: int) -> None:
    totals = watched(tmp_path, steps)
    lines = shown(width, LiveView(totals, Screen(io.StringIO()))._render(width))
    text = check(lines, width)
    assert f"step {steps}/{steps}" in "\n".join(lines)
    progress = next(line for line in lines if line.startswith("step"))
    assert "100%" in progress and "left" in progress
    for figure in ("2.00TFLOP/s(MFU25.0%)", "package2.00KiB,node1.00KiB,network512B", "4.0000"):
        assert figure in text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_summary_of_training(tmp_path: Path, width: int) -> None:
    text = check(shown(width, watched(tmp_path).table()), width)
    for figure in ("4.9000->4.0000", "1,500.0", "2.00TFLOP/s(MFU25.0%)", "3.00GiB", "512B"):
        assert figure in text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_compare(tmp_path: Path, width: int) -> None:
    figures = {
        "step_time_s": 0.125,
        "tokens_per_s_per_device": 1234567.8,
        "peak_memory_bytes": 60.5 * 2**30,
        "first_loss": 10.25,
        "last_loss": 9.5,
        "bytes_sent": None,
    }
    results = [
        Result("native", tmp_path, figures),
        Result("deepspeed", tmp_path, figures | {"step_time_s": 12.5}),
        Result("fsdp", tmp_path, reason="training.precision must be float32 for this engine"),
    ]
    text = check(shown(width, *parts(results)), width)
    for figure in ("125ms", "12.5s", "100.00", "1,234,567.8", "60.5GiB", "10.2500", "fsdpdidnotrun:"):
        assert figure in text


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("2.00 TFLOP/s (MFU 25.0 %)", 22, ["2.00 TFLOP/s (MFU", "25.0 %)"]),
        ("package 2.00 KiB, node 1.00 KiB", 26, ["package 2.00 KiB, node", "1.00 KiB"]),
        ("3 of 4 layouts", 6, ["3 of 4", "layout", "s"]),
    ],
)
def test_a_figure_keeps_its_unit(text: str, width: int, lines: list[str]) -> None:
    assert folded(text, width) == lines


@pytest.mark.parametrize(("terminal", "expected"), [("dumb", False), ("xterm-256color", True)])
def test_a_dumb_terminal_is_not_redrawn(
    monkeypatch: pytest.MonkeyPatch, terminal: str, expected: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", terminal)
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    assert redraws(Stream()) is expected
    assert not redraws(io.StringIO())
