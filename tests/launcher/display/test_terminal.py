"""Foreign text is shown harmless, and lines break where they may."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.text import Text

from frontrunner.analysis.spreadsheet import cell
from frontrunner.configs.load import dump
from frontrunner.launcher.display.screen import Screen
from frontrunner.launcher.display.tables import Table, folded, pairs
from frontrunner.launcher.display.terminal import Guarded, fitted, log_text, visible
from frontrunner.launcher.sweeping.report import Report
from frontrunner.launcher.sweeping.store import Trial
from frontrunner.launcher.sweeping.view import write_csv
from support import logs
from support.specs import run_spec
from support.terminal import in_pipe, on_terminal

#: Sets the window's title, clears the screen, is markup to rich, and forges a line.
EVIL = "evil\x1b]0;title\x07\x1b[2J[red]x[/]\nfinished  forged"
SHOWN = r"evil\x1b]0;title\x07\x1b[2J[red]x[/]\nfinished  forged"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(part: Any, width: int) -> list[str]:
    output = Terminal()
    screen = Screen(output)
    screen.width = width
    screen.print(part)
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", output.getvalue()).splitlines()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 字 [red]", "plain ü 字 [red]"),
        (EVIL, SHOWN),
        ("\t\r\x00\x7f\x9b", r"\t\r\x00\x7f\x9b"),
        ("a\u202eb\u2028c\u200bd", r"a\u202eb\u2028c\u200bd"),
        (b"name \xff".decode("utf-8", "surrogateescape"), r"name \xff"),
        ("\ud83d", r"\ud83d"),
        ("\U000e0041", r"\U000e0041"),
        ("👩\u200d🔬", "👩\u200d🔬"),  # joined on purpose
    ],
)
def test_visible(text: str, expected: str) -> None:
    assert visible(text) == expected
    assert visible(expected) == expected


def test_a_guarded_stream() -> None:
    raw = Terminal()
    print(EVIL, file=Guarded(raw))
    assert raw.getvalue() == SHOWN.replace(r"\n", "\n") + "\n"


def test_text_of_logs() -> None:
    data = b"\x1b[31;1mred\x1b[0m 10%\r 20%\r\n\x1b[2Jend \xff\n"
    assert log_text(data) == "red 10%\n 20%\n\\x1b[2Jend \ufffd\n"


@pytest.mark.parametrize("part", [EVIL, Table("", ("name",), [(EVIL,)]), pairs([(EVIL, "")])])
def test_the_screen(part: Any) -> None:
    assert SHOWN in printed(part, 100)


def test_styles_stay_where_they_were() -> None:
    text = Text.assemble(("a\x1bb", "red"), "c\x1b\n")
    found = [(part.text, part.style) for part in Screen(Terminal()).render(text) if part.text.strip()]
    assert "".join(text for text, _ in found) == r"a\x1bbc\x1b\n"
    assert "".join(text for text, style in found if style and style.color) == r"a\x1bb"


ROWS = [("gpt-22b-frontier-20261125", "tensor 8, data 2", "1,234.5", "12.3 TFLOP/s")] * 2


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (
            80,
            [
                "runs",
                "run                        layout            tokens/s per device  model FLOP/s",
                "─" * 78,
                "gpt-22b-frontier-20261125  tensor 8, data 2              1,234.5  12.3 TFLOP/s",
            ],
        ),
        (
            30,
            [
                "runs",
                "run            layout",
                "─" * 30,
                "gpt-22b-       tensor 8, data",
                "frontier-      2",
                "20261125",
            ],
        ),
        (
            44,
            [
                "runs",
                "run                        layout",
                "─" * 43,
                "gpt-22b-frontier-20261125  tensor 8, data 2",
                "gpt-22b-frontier-20261125  tensor 8, data 2",
                "                                tokens/s per",
                "run                                   device",
                "─" * 44,
                "gpt-22b-frontier-20261125            1,234.5",
                "gpt-22b-frontier-20261125            1,234.5",
                "run                        model FLOP/s",
            ],
        ),
    ],
)
def test_tables(width: int, expected: list[str]) -> None:
    table = Table("runs", ("run", "layout", "tokens/s per device", "model FLOP/s"), ROWS, texts=(0, 1))
    assert printed(table, width)[: len(expected)] == expected


@pytest.mark.parametrize("width", range(30, 130, 7))
def test_no_width_cuts_a_table(width: int) -> None:
    table = Table("", ("run", "layout", "tokens_per_s_per_device", "model FLOP/s"), ROWS, texts=(0, 1))
    lines = printed(table, width)
    assert max(map(len, lines)) <= width
    for text in ("1,234.5", "12.3 TFLOP/s"):
        assert sum(text in line for line in lines) == len(ROWS)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("a b", 10, ["a b"]),
        ("one two three", 8, ["one two", "three"]),
        ("runs/gpt-22b-frontier", 12, ["runs/gpt-", "22b-frontier"]),
        ("x" * 25, 10, ["x" * 10, "x" * 10, "x" * 5]),
        ("字字字字", 4, ["字字", "字字"]),
        ("", 4, [""]),
    ],
)
def test_folded(text: str, width: int, lines: list[str]) -> None:
    assert folded(text, width) == lines


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("short", ["short"]),
        ("speed   412.3 tokens/s per device, fast", ["speed   412.3 tokens/s per", "        device, fast"]),
        ("  - some words in a long sentence", ["  - some words in a long", "    sentence"]),
        ("memory of a device is at most 5 GiB", ["memory of a device is at most", "  5 GiB"]),
        ("wrote /a/path/that/is/longer/than/a/line", ["wrote", "  /a/path/that/is/longer/than/a/line"]),
    ],
)
def test_fitted(line: str, lines: list[str]) -> None:
    assert fitted(line, 30) == lines
    assert fitted(line, None) == [line]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A run with such a name, warning, error and log."""
    run = logs.write_run(tmp_path / "runs" / EVIL.replace("/", ""), [2.0] * 5)
    with (run / "records.jsonl").open("a") as file:
        file.write(logs.line({"kind": "warning", "step": 5, "message": EVIL}))
    (run / "run.yaml").write_text(dump(run_spec()))
    (run / "logs").mkdir()
    (run / "logs" / "rank-0.log").write_text(EVIL)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["top", "--once"],
        ["analyze", "runs"],
        ["check", EVIL],
        ["check", "quickstart", "-o", EVIL],
        [EVIL],
    ],
)
def test_commands_show_foreign_text_harmless(place: Path, words: list[str]) -> None:
    shown = on_terminal(*words, folder=place, columns=200)
    text = "\n".join(shown.lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
    assert "title" in text
    assert "finished  forged" not in [line.strip() for line in shown.lines] or words == [EVIL]
    assert "[red]x[" in text


def test_nothing_is_coloured_or_broken_in_pipes(place: Path) -> None:
    env = {"COLUMNS": "40", "TERM": "xterm-256color"}
    shown = in_pipe("status", folder=place, env=env).stdout
    assert "\x1b" not in shown and r"evil\x1b]0;title\x1b[2J[red]x[]\nfinished  forged" in shown
    assert in_pipe("validate", folder=place, env=env).stdout == in_pipe("validate", folder=place).stdout


def test_no_color(place: Path) -> None:
    coloured = re.compile(r"\x1b\[(?:\d+;)*3\d")
    assert coloured.search(on_terminal("status", folder=place).raw)
    assert not coloured.search(on_terminal("status", folder=place, env={"NO_COLOR": "1"}).raw)


def test_logs_are_raw_in_pipes_only(place: Path) -> None:
    run = str(next((place / "runs").iterdir()))
    name = next((place / "runs").glob("*/logs/*"))
    assert in_pipe("logs", run, "--rank", "0", folder=place).stdout == name.read_text()
    assert r"evil\x1b]0;title\x07\x1b[2J[red]x[/]" in on_terminal("logs", run, "--rank", "0").lines


@pytest.mark.parametrize(
    ("value", "expected"),
    [("=1+1", "'=1+1"), ("+a", "'+a"), ("-a", "'-a"), ("@a", "'@a"), ("\n=a", "'\n=a"), ("＝a", "'＝a")]
    + [(-1.5, -1.5), (None, None), ("a=1", "a=1"), ("", "")],
)
def test_cells(value: object, expected: object) -> None:
    assert cell(value) == expected


def test_a_sweeps_csv_holds_no_formula(tmp_path: Path) -> None:
    trial = Trial(0, 0, {"model": "=cmd()"}, "complete", -1.5, None, 0, None, 0.0)
    report = Report("s", "o", {}, (trial,), None, "quickstart", None, None, None, 0.0, None)
    write_csv(report, tmp_path / "t.csv")
    (row,) = csv.DictReader((tmp_path / "t.csv").open())
    assert (row["model"], row["objective"]) == ("'=cmd()", "-1.5")


def test_errors_are_a_line_each(tmp_path: Path) -> None:
    done = in_pipe("check", EVIL, folder=tmp_path)
    assert len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr
    assert json.loads(in_pipe("check", EVIL, "--json", folder=tmp_path).stdout)["valid"] is False
