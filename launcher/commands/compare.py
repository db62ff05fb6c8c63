"""``frontrunner compare``: the same run under several engines, in turn, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from frontrunner.configs.engines import ENGINES
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.display.terminal import say, tell


def compare(
    run: Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file or preset.")],
    engines: Annotated[
        str, typer.Option(metavar="NAMES", help="Comma-separated engines; ratios are relative to the first.")
    ] = ",".join(ENGINES),
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps per run.")] = 6,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Parent of one run folder per engine [default: runs/NAME-DATE-TIME]."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object; messages go to stderr.")
    ] = False,
) -> None:
    """Train one run with several engines in turn and compare step time, memory and loss.

    An engine that does not support the run is listed with the reason.
    """
    from frontrunner.launcher import comparison
    from frontrunner.launcher.display.screen import Screen
    from frontrunner.launcher.ranks.local import require_torch
    from frontrunner.launcher.verify import verified
    from frontrunner.parallelism.corpus import check_data
    from frontrunner.run_folder import folder as run_folder

    names = _names(engines)
    overrides = list(override or [])
    if given := [text for text in overrides if text.partition("=")[0].strip() == "engine"]:
        constraint, fix = "is named by an option here", "give --engines NAME"
        raise SpecError([Violation("engine", given[-1].partition("=")[2], constraint, fix)])
    document, _ = verified(run, [*overrides, "engine=native"])  # errors that apply to every engine
    try:
        check_data(document.spec)
    except SpecError as error:
        raise document.annotate(error) from None
    warm_up = min(document.spec.optimizer.warmup_steps, steps)
    overrides += [
        f"training.steps={steps}",
        "training.validation_samples=0",
        "training.validate_every_steps=0",
        f"optimizer.warmup_steps={warm_up}",
    ]
    require_torch()
    folder = run_dir or run_folder.dated(f"{document.spec.name}-compare")
    results: list[comparison.Result] = []
    for name in names:
        (say if as_json else tell)(f"{name}: {folder / name}")
        results.append(comparison.run_engine(name, run, overrides, folder / name))
    if as_json:
        outputs: dict[str, Any] = {"outputs": [result.as_json(results[0]) for result in results]}
        print(json.dumps(outputs))
    else:
        Screen().lines(comparison.parts(results))
    if not any(result.summary for result in results):
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names or len(set(names)) < len(names):
        fix = f"choose from {','.join(ENGINES)}"
        raise SpecError([Violation("--engines", text, "must be distinct engine names", fix)])
    return names
