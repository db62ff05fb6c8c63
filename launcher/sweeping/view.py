"""A sweep's report for people: tables, and a CSV file."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from frontrunner.analysis.spreadsheet import cell
from frontrunner.configs.units import number_text
from frontrunner.launcher.display.tables import Table
from frontrunner.launcher.sweeping.report import Report, row
from frontrunner.launcher.sweeping.store import Trial

_MOST_ROWS = 30


def progress(report: Report) -> list[RenderableType]:
    """Progress, and every trial in order of start."""
    return [_summary(report), _trials(report, sorted(report.trials, key=lambda trial: -trial.number))]


def ranking(report: Report) -> list[RenderableType]:
    """The trials, best first, and the keys by sensitivity."""
    parts: list[RenderableType] = [_summary(report), _trials(report, report.trials)]
    if report.sensitivity and report.shap:
        shares = [
            (key, f"{share:.1%}", f"{report.shap[key]:.1%}") for key, share in report.sensitivity.items()
        ]
        parts += [Text(""), Table("", ("key", "fANOVA", "SHAP"), shares)]
    elif report.sensitivity is not None:
        parts.append(Text("too few trials to rank the keys"))
    return parts


def write_csv(report: Report, file: Path) -> None:
    """One row per trial, one column per key."""
    keys = list(dict.fromkeys(key for trial in report.trials for key in trial.values))
    own = ["number", "state", "failure", "objective", "predicted", "error_pct", "node_hours", "attempt"]
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.DictWriter(stream, [*own, *keys], extrasaction="ignore", restval="")
        rows.writeheader()
        for trial in report.trials:
            found = {key: value for key, value in row(trial).items() if value is not None} | trial.values
            rows.writerow({key: cell(value) for key, value in found.items()})


def _summary(report: Report) -> Text:
    counts = Counter(trial.failure or trial.state for trial in report.trials)
    states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in sorted(counts.items()))
    text = f"{report.name}: {len(report.trials)} of {report.budget['trials']} trials ({states or 'none yet'})"
    text += f", {report.node_hours:.3g} node-hours"
    if report.best is not None:
        text += f"; best {report.objective} {number_text(report.best.objective, ',.6g')}"
    if report.prediction_error_pct is not None:
        text += f"; mean planner error {report.prediction_error_pct:.1f} %"
    return Text(text)


def _trials(report: Report, trials: Sequence[Trial]) -> Table:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    short = [key.rpartition(".")[2] if key.rpartition(".")[2] != "preset" else "sharding" for key in keys]
    rows = []
    for trial in trials[:_MOST_ROWS]:
        error = row(trial)["error_pct"]
        rows.append(
            (
                str(trial.number),
                (trial.failure or trial.state).replace("_", " "),
                *(str(trial.values.get(key, "-")) for key in keys),
                number_text(trial.objective, ",.5g"),
                number_text(trial.predicted, ",.5g"),
                f"{error:+.1f} %" if error is not None else "-",
            )
        )
    headings = ("trial", "state", *short, report.objective, "predicted", "off")
    return Table("", headings, rows, texts=(1,))
