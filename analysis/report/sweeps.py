"""A sweep on the page: its ranking, which keys matter, and predicted against measured trials."""

from __future__ import annotations

from typing import Any

from frontrunner.analysis.report.chart import Chart, Series
from frontrunner.analysis.report.table import Column, Section, table
from frontrunner.configs.units import digits, share_text

Figures = dict[str, Any]
SHARE_COLUMNS = (
    Column("key", "key"),
    Column("fANOVA", "fanova", "share"),
    Column("SHAP", "shap", "share"),
)


def section(answer: Figures) -> Section | None:
    """All sweeps of an analysis; None if it has none."""
    if not answer["sweeps"]:
        return None
    tables, charts, notes = [], [], []
    for index, sweep in enumerate(answer["sweeps"]):
        trials = [f"sweeps.{index}.trials.{n}" for n in range(len(sweep["trials"]))]
        tables.append(table(answer, f"Ranking: {sweep['name']}", ranking_columns(sweep), trials))
        if sweep["shares"]:
            shares = [f"sweeps.{index}.shares.{n}" for n in range(len(sweep["shares"]))]
            tables.append(table(answer, f"Which keys matter: {sweep['name']}", SHARE_COLUMNS, shares))
        charts += [*_sensitivity(sweep, index), *_predicted(sweep, index)]
        notes.append(f"{sweep['name']}: {len(trials)} trials, {digits(sweep['node_hours'])} node-hours.")
    return Section("sweeps", "Sweeps", notes, tables, charts)


def ranking_columns(sweep: Figures) -> tuple[Column, ...]:
    """The columns of every trial, plus one for each key of the space."""
    keys = (Column(key.rpartition(".")[2], f"settings.{n}") for n, key in enumerate(sweep["keys"]))
    return (
        Column("rank", "rank", "count"),
        Column("trial", "number", "count"),
        Column("state", "state"),
        Column("failure", "failure"),
        *keys,
        Column(sweep["objective"], "objective", "number"),
        Column("predicted", "predicted", "number"),
        Column("error", "error_pct", "change"),
        Column("node-hours", "node_hours", "number"),
    )


def _sensitivity(sweep: Figures, index: int) -> list[Chart]:
    shares = sweep["shares"]
    if not shares:
        return []
    keys = [share["key"] for share in shares]
    said = ", ".join(f"{share['key']} {share_text(share['fanova'])}" for share in shares)
    return [
        Chart(
            f"sensitivity-{index + 1}",
            f"Which keys matter: {sweep['name']}",
            "",
            "share of the variation",
            [
                Series("fANOVA", keys, [share["fanova"] for share in shares], "bar"),
                Series("SHAP", keys, [share["shap"] for share in shares], "bar"),
            ],
            f"Share of the objective's variation that each key explains, by fANOVA: {said}.",
            y_kind="share",
        )
    ]


def _predicted(sweep: Figures, index: int) -> list[Chart]:
    done = [t for t in sweep["trials"] if t["objective"] is not None and t["predicted"] is not None]
    if not done:
        return []
    measured = [trial["objective"] for trial in done]
    ends = [min(measured), max(measured)]
    best = done[0]
    return [
        Chart(
            f"trials-{index + 1}",
            f"Trials, predicted against measured: {sweep['name']}",
            f"{sweep['objective']} measured",
            f"{sweep['objective']} predicted",
            [
                Series(
                    "trials",
                    measured,
                    [trial["predicted"] for trial in done],
                    "markers",
                    labels=[f"trial {trial['number']}" for trial in done],
                ),
                Series("equal", ends, ends, "lines", dashed=True),
            ],
            f"Predictions at the start of {len(done)} trials against what they measured. The best, trial "
            f"{best['number']}, measured {digits(best['objective'])}.",
        )
    ]
