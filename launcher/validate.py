"""``frontrunner validate``: the planner against published runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from frontrunner.parallelism.planner.validate import Comparison, Validation


def validate(
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of published runs (default: ours).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict published runs and say how far off the planner is, for speed and for memory."""
    from importlib.resources import files

    from frontrunner.configs.load import load_machine
    from frontrunner.parallelism.planner import published
    from frontrunner.parallelism.planner import validate as planner

    path = rows or Path(str(files("frontrunner.configs.published") / "mi250x.yaml"))
    known = {name: load_machine(name) for name in set(planner.MACHINES.values())}
    found = planner.validate(published.read(path), known.__getitem__)
    if as_json:
        typer.echo(json.dumps(as_dict(found)))
    else:
        show(found)


def as_dict(found: Validation) -> dict[str, object]:
    """The contract of ``--json``; speeds are tokens/s of a device, memory bytes."""
    return {
        "speed": _figures(found.speed),
        "memory": _figures(found.memory),
        "at_rest": _figures(found.at_rest),
        "skipped": [{"id": name, "reason": reason} for name, reason in found.skipped],
        "fitted": found.fitted,
        "engines": found.reasons,
    }


def _figures(compared: list[Comparison]) -> dict[str, object]:
    return summary(compared) | {
        "by_machine": {
            machine: summary([c for c in compared if c.machine == machine])
            for machine in sorted({c.machine for c in compared})
        },
        "rows": [
            {
                "id": c.id,
                "published": c.published,
                "predicted": c.predicted,
                "error_pct": c.error_pct,
                "left_out_error_pct": c.left_out_error_pct,
                "engine": c.practice,
            }
            for c in compared
        ],
    }


def summary(compared: list[Comparison]) -> dict[str, float | None]:
    """Mean and largest absolute error, and the mean with each source left out of the fit."""
    errors = [abs(c.error_pct) for c in compared]
    left_out = [abs(c.left_out_error_pct) for c in compared if c.left_out_error_pct is not None]
    return {
        "mean_abs_error_pct": sum(errors) / len(errors) if errors else None,
        "max_abs_error_pct": max(errors, default=None),
        "left_out_mean_abs_error_pct": sum(left_out) / len(left_out) if left_out else None,
    }


def show(found: Validation) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    for title, compared, scale, unit in (
        ("speed", found.speed, 1.0, "tokens/s a device"),
        ("memory at the peak", found.memory, 2**30, "GiB"),
        ("memory at rest", found.at_rest, 2**30, "GiB"),
    ):
        if not compared:
            continue
        table = Table("run", f"published {unit}", "predicted", "error", title=title, title_justify="left")
        if title == "speed":
            table.add_column("source left out")
        for c in compared:
            cells = [
                c.id,
                f"{c.published / scale:,.1f}",
                f"{c.predicted / scale:,.1f}",
                f"{c.error_pct:+.1f} %",
            ]
            if title == "speed":
                cells.append("-" if c.left_out_error_pct is None else f"{c.left_out_error_pct:+.1f} %")
            table.add_row(*cells)
        console.print(table)
        for name in ["", *sorted({c.machine for c in compared})]:
            figures = summary([c for c in compared if name in ("", c.machine)])
            left_out = figures["left_out_mean_abs_error_pct"]
            console.print(
                f"  {name or 'all'}: mean {figures['mean_abs_error_pct']:.1f} %, at most "
                f"{figures['max_abs_error_pct']:.1f} %"
                + ("" if left_out is None else f", each source left out of the fit {left_out:.1f} %")
            )
    for name, constants in sorted(found.fitted.items()):
        for key, fitted_rows in constants.items():
            console.print(f"fitted: {name} {key}, to {', '.join(fitted_rows)}")
    for name, reason in found.reasons.items():
        console.print(f"engine: {name}: {reason}")
    for name, reason in found.skipped:
        console.print(f"skipped: {name}: {reason}")
