"""``frontrunner analyze``: figures of many runs, their scaling, and implausible values."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.launcher.errors import try_import
from frontrunner.launcher.outputs import check_outputs

if TYPE_CHECKING:
    from frontrunner.analysis.analyze import Analysis

EXTRA = "analysis"


def analyze(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATHS...", help="Run folders, logs, or folders that contain them.")
    ],
    machine: Annotated[
        str | None, typer.Option(help="Machine for logs that do not name one: a preset or a file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write the figures, one row per run.")] = None,
    steps: Annotated[Path | None, typer.Option(help="Write all steps: FILE.csv or FILE.parquet.")] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write all steps for TensorBoard into a folder.")
    ] = None,
    sweep: Annotated[
        list[Path] | None,
        typer.Option(help="Output of `sweep report --json` to include in the report (repeatable)."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report: FILE.html.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Write plots as PNG and SVG into a folder.")] = None,
) -> None:
    """Compare runs from records or logs: speed, memory, scaling, implausible values."""
    try_import("polars", EXTRA)
    from frontrunner.analysis.analyze import analyze as analyze_runs
    from frontrunner.analysis.export import check_ending
    from frontrunner.analysis.read import read
    from frontrunner.analysis.sweeps import read_sweeps

    if steps is not None:
        check_ending(steps)
    if report is not None and not report.is_dir() and report.suffix.lower() not in (".html", ".htm"):
        fix = f"write {report.with_suffix('.html')}"
        raise SpecError([Violation("--report", str(report), "must end in .html: it is a page", fix)])
    check_outputs(
        {"--csv": csv, "--steps": steps, "--report": report},
        {"--tensorboard": tensorboard, "--figures": figures},
    )
    found = analyze_runs(read(paths), machine, read_sweeps(sweep or ()))
    for each in found.answer["unread"]:
        say(f"skipped {each['path']}: {each['reason']}")
    outputs = [*_tables(found, csv, steps, tensorboard), *_pages(found, report, figures)]
    if as_json:
        json.dump(found.answer | {"outputs": [str(path) for path in outputs]}, sys.stdout, allow_nan=False)
        typer.echo()
        return
    _show(found.answer)
    for path in outputs:
        tell(f"wrote {path}")


def _tables(found: Analysis, csv: Path | None, steps: Path | None, tensorboard: Path | None) -> list[Path]:
    """Write runs and steps to files."""
    from frontrunner.analysis import export

    outputs = []
    if csv is not None:
        export.write_runs(found.answer, csv)
        outputs.append(csv)
    if steps is not None:
        export.write_steps(found, steps)
        outputs.append(steps)
    if tensorboard is not None:
        try_import("tensorboard.summary", "tensorboard")
        outputs += export.write_tensorboard(found, tensorboard)
    return outputs


def _pages(found: Analysis, report: Path | None, folder: Path | None) -> list[Path]:
    """The HTML report, and plots for papers."""
    outputs = []
    if report is not None:
        try_import("plotly", EXTRA)
        from frontrunner.analysis.report.page import write

        write(found, report)
        outputs.append(report)
    if folder is not None:
        try_import("matplotlib", EXTRA)
        from frontrunner.analysis.report.papers import draw

        outputs += draw(found, folder)
    return outputs


def _show(answer: dict[str, Any]) -> None:
    from frontrunner.launcher.display.analysis_tables import parts
    from frontrunner.launcher.display.screen import Screen

    Screen().lines(parts(answer))
