"""Writes the tables of an analysis: runs as CSV, steps as CSV, Parquet or TensorBoard events."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from frontrunner.analysis.analyze import Analysis
from frontrunner.analysis.spreadsheet import FORMULA, cell
from frontrunner.analysis.steady import OTHER, OUTLIER, STEADY, WARM_UP
from frontrunner.configs.errors import SpecError, Violation

ENDINGS = (".csv", ".parquet")
_USES = {STEADY: "steady", WARM_UP: "warm-up", OUTLIER: "outlier", OTHER: "other layout"}


def check_ending(path: Path) -> None:
    """Raise SpecError if the file's suffix is not one that steps can be written to."""
    if path.suffix not in ENDINGS:
        constraint = f"must end in {' or '.join(ENDINGS)}"
        raise SpecError([Violation("--steps", str(path), constraint, f"write {path.stem}.parquet")])


def write_runs(answer: dict[str, Any], path: Path) -> None:
    """One row per run; nested keys are joined by dots, lists are JSON."""
    rows = [dict(_flat(run)) for run in answer["runs"]]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([cell(column) for column in columns])
        writer.writerows([cell(row.get(column, "")) for column in columns] for row in rows)


def _flat(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(item) if isinstance(item, list) else item


def steps_table(found: Analysis) -> pl.DataFrame:
    """Every step, with the run's name in ``run`` and how the step is used in ``use``."""
    names = pl.Series("run", [run.id for run in found.collection.runs], dtype=pl.String)
    return found.steps.with_columns(
        names.gather(found.steps["run"]).alias("run"),
        pl.col("use").replace_strict(_USES, return_dtype=pl.String),
    )


def write_steps(found: Analysis, path: Path) -> None:
    """Write CSV or Parquet, depending on the suffix of ``path``."""
    check_ending(path)
    table = steps_table(found)
    if path.suffix == ".parquet":
        table.write_parquet(path)
    else:
        name = pl.col("run")
        dangerous = pl.any_horizontal(*(name.str.starts_with(start) for start in FORMULA))
        table.with_columns(pl.when(dangerous).then("'" + name).otherwise(name).alias("run")).write_csv(path)


def write_tensorboard(found: Analysis, folder: Path) -> list[Path]:
    """Write the scalars of every step, one folder per run. Needs the extra ``tensorboard``."""
    writer_of = import_module("tensorboard.summary").Writer
    outputs = []
    parts = found.steps.partition_by("run", maintain_order=True)
    for run, steps in zip(found.collection.runs, parts, strict=True):
        place = folder / re.sub(r"[^\w.()-]+", "-", run.id).strip(".")
        writer = writer_of(str(place))
        numbers = [name for name in steps.columns if name not in ("run", "segment", "step", "use")]
        for row in steps.iter_rows(named=True):
            for name in numbers:
                if row[name] is not None:
                    writer.add_scalar(f"train/{name}", float(row[name]), row["step"])
        writer.close()
        outputs.append(place)
    return outputs
