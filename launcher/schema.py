"""``frontrunner schema``: the JSON schema of run files."""

from __future__ import annotations

import json

import typer

from frontrunner.configs.json_schema import run_file_schema


def schema() -> None:
    """Print the JSON schema of run files, with which editors complete and check them."""
    typer.echo(json.dumps(run_file_schema(), indent=2))
