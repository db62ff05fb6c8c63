"""``frontrunner validate``: compare the planner with published runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.units import interval_text
from frontrunner.launcher.display.terminal import say, tell

if TYPE_CHECKING:
    from frontrunner.launcher.display.tables import Table
    from frontrunner.parallelism.planner.relative import Ratios
    from frontrunner.parallelism.planner.validate import Comparison, Validation


def validate(
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of published runs (default: built in).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict published runs and report the planner's errors in speed and memory."""
    from importlib.resources import files

    from frontrunner.configs.load import load_machine, load_run
    from frontrunner.parallelism.planner import published
    from frontrunner.parallelism.planner import validate as planner
    from frontrunner.parallelism.planner.relative import CONVENTION, PUBLISHED, ratios

    built_in = Path(str(files("frontrunner.configs.published")))
    paths = [rows] if rows else [built_in / "mi250x.yaml", built_in / "other_devices.yaml"]
    known = {
        name: load_machine(name) for name in {*planner.MACHINES.values(), *planner.OTHER_MACHINES.values()}
    }
    read = [row for path in paths for row in published.read(path)]
    for text in (text for row in read for text in row.unknown_keys()):
        say(text)
    found = planner.validate(read, known.__getitem__)
    model = load_run("gpt-22b-frontier", ["model=gpt-neox-20b", "layout.pipeline=1"]).spec.model
    relative = ratios(model, known["frontier"])
    if as_json:
        answer = as_dict(found) | {"relative": [asdict(row) for row in relative]}
        held = {"relative_published": PUBLISHED, "relative_convention": CONVENTION}
        typer.echo(json.dumps(answer | held))
    else:
        show(found)
        show_relative(relative)


def as_dict(found: Validation) -> dict[str, object]:
    """The contract of ``--json``; speeds in tokens/s per device, memory in bytes."""
    return {
        "speed": _figures(found.speed),
        "checks": _figures(found.checks),
        "other_devices": [_other(c) for c in found.other_devices],
        "memory": _figures(found.memory),
        "at_rest": _figures(found.at_rest),
        "skipped": [{"id": name, "reason": reason} for name, reason in found.skipped],
        "fitted": found.fitted,
        "constants_fitted": constants_fitted(found),
        "engines": found.reasons,
        "intervals": intervals(found),
    }


def intervals(found: Validation) -> dict[str, float]:
    """How many published speeds lie in the interval that other sources give them."""
    from frontrunner.parallelism.planner.uncertainty import CONFIDENCE, coverage

    held, judged = coverage()
    of_checks = {"checks_held": len(found.held), "checks": len(found.checks)}
    return {"confidence": CONFIDENCE, "held": held, "judged": judged, "coverage": held / judged} | of_checks


def _other(c: Comparison) -> dict[str, object]:
    row = {"id": c.id, "published": c.published, "predicted": c.predicted, "error_pct": c.error_pct}
    return row | {
        "interval_pct": c.interval_pct,
        "engine": c.profile,
        "source": c.source,
        "devices": c.devices,
    }


def constants_fitted(found: Validation) -> int:
    """Number of fitted constants; one shared by several machines counts once."""
    return len({(key, *rows) for constants in found.fitted.values() for key, rows in constants.items()})


def _figures(compared: list[Comparison]) -> dict[str, object]:
    return summary(compared) | {
        "by_machine": {
            machine: summary([c for c in compared if c.machine == machine])
            for machine in sorted({c.machine for c in compared})
        },
        "by_source": {
            source: summary([c for c in compared if c.source == source])
            for source in sorted({c.source for c in compared if c.source})
        },
        "rows": [
            {
                "id": c.id,
                "published": c.published,
                "predicted": c.predicted,
                "error_pct": c.error_pct,
                "left_out_error_pct": c.left_out_error_pct,
                "engine": c.profile,
                "source": c.source,
                "devices": c.devices,
            }
            for c in compared
        ],
    }


def summary(compared: list[Comparison]) -> dict[str, float | None]:
    """Mean and largest absolute error, and the mean with each source excluded from the fit."""
    errors = [abs(c.error_pct) for c in compared]
    left_out = [abs(c.left_out_error_pct) for c in compared if c.left_out_error_pct is not None]
    return {
        "mean_abs_error_pct": sum(errors) / len(errors) if errors else None,
        "max_abs_error_pct": max(errors, default=None),
        "left_out_mean_abs_error_pct": sum(left_out) / len(left_out) if left_out else None,
        "left_out_max_abs_error_pct": max(left_out, default=None),
    }


def show(found: Validation) -> None:
    from frontrunner.launcher.display.screen import Screen

    console = Screen()
    for title, compared, scale, unit in (
        ("speed", found.speed, 1.0, "tokens/s per device"),
        ("speed of rows that nothing is fitted to", found.checks, 1.0, "tokens/s per device"),
        ("memory at the peak", found.memory, 2**30, "GiB"),
        ("memory at rest", found.at_rest, 2**30, "GiB"),
    ):
        if compared:
            console.print(_table(title, compared, scale, unit))
            for name in ("", *sorted({c.machine for c in compared})):
                console.print(_summary_text(name, [c for c in compared if name in ("", c.machine)]))
            for source in sorted({c.source for c in compared if c.source}):
                console.print(_summary_text(source, [c for c in compared if c.source == source]))
    held = intervals(found)
    console.print(
        "{confidence:.0%} intervals, each from other sources: {held} of {judged} fitted rows lie inside "
        "({coverage:.0%}), {checks_held} of {checks} others".format(**held)
    )
    if found.other_devices:
        console.print(_other_table(found.other_devices))
    console.print(f"constants fitted: {constants_fitted(found)}")
    for name, constants in sorted(found.fitted.items()):
        for key, fitted_rows in constants.items():
            console.print(f"fitted: {name} {key}, to {', '.join(fitted_rows)}")
    for kind, texts in (("engine", found.reasons.items()), ("skipped", found.skipped)):
        for name, reason in texts:
            console.print(f"{kind}: {name}: {reason}")


def _table(title: str, compared: list[Comparison], scale: float, unit: str) -> Table:
    from frontrunner.launcher.display.tables import Table

    headings = ["run", f"published {unit}", "predicted", "error"]
    left_out = any(c.left_out_error_pct is not None for c in compared)
    rows = [
        [
            c.id,
            f"{c.published / scale:,.1f}",
            f"{c.predicted / scale:,.1f}",
            _percent(c.error_pct),
            *([_percent(c.left_out_error_pct)] if left_out else []),
        ]
        for c in compared
    ]
    return Table(title, [*headings, *(["source excluded"] if left_out else [])], rows)


def _other_table(compared: list[Comparison]) -> Table:
    from frontrunner.launcher.display.tables import Table

    headings = ["run", "published tokens/s per device", "predicted", "error"]
    rows = [
        [
            c.id,
            f"{c.published:,.1f}",
            f"{c.predicted:,.1f}" + interval_text(c.interval_pct),
            _percent(c.error_pct),
        ]
        for c in compared
    ]
    return Table("speed on other devices, to which nothing is fitted", headings, rows)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def _summary_text(name: str, compared: list[Comparison]) -> str:
    figures = summary(compared)
    left_out = figures["left_out_mean_abs_error_pct"]
    return (
        f"  {name or 'all'}: mean {figures['mean_abs_error_pct']:.1f} %, max "
        f"{figures['max_abs_error_pct']:.1f} %"
        + (
            ""
            if left_out is None
            else f", with each source excluded from the fit {left_out:.1f} %, max "
            f"{figures['left_out_max_abs_error_pct']:.1f} %"
        )
    )


def show_relative(relative: list[Ratios]) -> None:
    """The ratios of Xu et al., and their dependence on the batch, which the paper does not give."""
    from frontrunner.parallelism.planner.relative import CONVENTION, PUBLISHED

    wanted = (
        "published: ZeRO-3 : ZeRO++ : three levels = 1 : {zeropp} : {three_level}, efficiency {efficiency}"
    )
    tell("Xu et al. 2025, a 20B GPT on 384 devices; " + wanted.format(**PUBLISHED))
    tell(f"  convention (the paper gives no batch): {CONVENTION}")
    for row in relative:
        tell(
            f"  micro-batch {row.micro_batch_size}: 1 : {row.zeropp:.3f} : {row.three_level:.3f}, efficiency "
            f"{row.efficiency:.2f}" + (" (the convention)" if row is relative[0] else "")
        )
