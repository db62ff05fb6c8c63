"""``frontrunner schema``: the JSON schema of run or sweep files."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from frontrunner.configs.json_schema import run_file_schema, sweep_file_schema


def schema(
    kind: Annotated[Literal["run", "sweep"], typer.Argument(help="Kind of file.")] = "run",
) -> None:
    """Print the JSON schema of run or sweep files, for completion and checks in editors."""
    typer.echo(json.dumps(sweep_file_schema() if kind == "sweep" else run_file_schema(), indent=2))
