"""``frontrunner import``: other trainers' scripts, configurations and logs as a run file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frontrunner.configs.brief import brief
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.display.terminal import say

if TYPE_CHECKING:
    from frontrunner.launcher.importers.settings import Ignored

_SOURCES = ("megatron", "megatron-deepspeed", "deepspeed", "gpt-neox", "torchtitan", "nemo")


def import_files(
    paths: Annotated[
        list[Path], typer.Argument(metavar="FILES", help="A script, configuration files, or a log.")
    ],
    trainer: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TRAINER", help=f"Default: by content. One of: {', '.join(_SOURCES)}."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model preset or file, in place of the files'.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="A machine preset or file, if the files do not say.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="Number of nodes, if the files do not say.")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A variable of a script, or a setting (repeatable)."
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="The run file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a run file from another trainer's files, and list what has no counterpart."""
    from frontrunner.launcher.importers.drafting import TITLES, Request, imported
    from frontrunner.launcher.written import check_free, write_text

    if trainer is not None and trainer not in _SOURCES:
        fix = f"use one of: {', '.join(_SOURCES)}"
        raise SpecError([Violation("--from", trainer, "is not a trainer that can be read", fix)])
    if write:
        check_free(write, force, "--write")
    folder = write.parent if write else Path()
    variables = _variables(given or [])
    found = imported(Request(paths, trainer, model, machine, nodes, variables, override or [], folder))
    names = ", ".join(str(path) for path in paths)
    notes = {next(iter(found.keys)): [f"From {names} ({TITLES[found.trainer]}) by `frontrunner import`."]}
    text = brief(found.keys, notes)
    if write:
        write_text(write, text, force, "--write")
    if as_json:
        understood = [{"key": key, "from": origin} for key, origin in found.understood.items()]
        ignored = [vars(setting) for setting in found.ignored]
        outputs = [str(write)] if write else []
        typer.echo(
            json.dumps({"run": found.keys, "understood": understood, "ignored": ignored, "outputs": outputs})
        )
        return
    _tell(found.ignored, len(found.understood))
    if write:
        typer.echo(f"wrote {write}")
        say(f"next: frontrunner plan {write}")
    else:
        typer.echo(text, nl=False)


def _variables(given: list[str]) -> dict[str, str]:
    wrong = [text for text in given if not text.partition("=")[0].strip() or "=" not in text]
    if wrong:
        raise SpecError(
            [Violation("--set", text, "is not NAME=VALUE", "write it like TP=8") for text in wrong]
        )
    return {name: value for name, _, value in (text.partition("=") for text in given)}


def _tell(ignored: Sequence[Ignored], understood: int) -> None:
    """What has no counterpart, by what follows from it; what changes the run comes first, with values."""
    from frontrunner.launcher.importers.consequences import is_harmless

    groups: dict[str, list[str]] = {}
    for setting in ignored:
        key, value = setting.key, setting.value
        shown = f"{key} {value}".strip() if len(value) <= 40 else f"{key} {value[:37]}..."
        groups.setdefault(setting.consequence, []).append(key if is_harmless(setting.consequence) else shown)
    say(f"# {understood} keys of the run file are from these files.")
    for consequence in sorted(groups, key=is_harmless):
        say(f"# - {consequence}:")
        say(f"#   {', '.join(groups[consequence])}")
