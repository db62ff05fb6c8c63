"""``frontrunner schema``: the JSON schema of run files, or of sweep files."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from frontrunner.configs.json_schema import run_file_schema, sweep_file_schema


def schema(
    kind: Annotated[Literal["run", "sweep"], typer.Argument(help="Which files it is for.")] = "run",
) -> None:
    """Print the JSON schema of run or sweep files, with which editors complete and check them."""
    typer.echo(json.dumps(sweep_file_schema() if kind == "sweep" else run_file_schema(), indent=2))
