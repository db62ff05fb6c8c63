"""``frontrunner presets``: the presets in the package, and what is in them."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from frontrunner.launcher.display.terminal import tell


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Print the file of this preset.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the machines, models, runs and sweeps that come with frontrunner, or print one."""
    from frontrunner.configs import presets as known
    from frontrunner.configs.errors import SpecError, Violation

    if name is None:
        found = [{"kind": kind, "name": each} for kind in known.KINDS for each in known.names(kind)]
        if as_json:
            typer.echo(json.dumps({"presets": found}))
            return
        for kind in known.KINDS:
            tell(f"{kind}s", *(f"  {each}" for each in known.names(kind)))
        return
    its_kind = known.kind_of(name)
    path = known.path(its_kind, name) if its_kind else None
    if path is None:
        every = [each for kind in known.KINDS for each in known.names(kind)]
        raise SpecError([Violation("NAME", name, "is not a preset", known.suggest(name, every))])
    text = path.read_text(encoding="utf-8")
    if as_json:
        typer.echo(json.dumps({"presets": [{"kind": its_kind, "name": name, "text": text}]}))
    else:
        typer.echo(text, nl=False)
