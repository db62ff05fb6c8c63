"""``frontrunner completion``: a script with which a shell completes our commands."""

from __future__ import annotations

from typing import Annotated

import typer


def completion(
    shell: Annotated[str, typer.Argument(metavar="SHELL", help="One of: bash, zsh, fish.")],
) -> None:
    """Print a script that completes commands, options, presets, run folders and keys in a shell."""
    from frontrunner.configs.errors import SpecError, Violation
    from frontrunner.launcher.cli import COMMANDS, build
    from frontrunner.launcher.completion import SHELLS, describe, script

    if shell not in SHELLS:
        fix = f"use one of: {', '.join(SHELLS)}"
        raise SpecError([Violation("SHELL", shell, "is not a supported shell", fix)])
    known = []
    for name in COMMANDS:
        found = typer.main.get_command(build([name])).commands[name]  # type: ignore[attr-defined]
        known.append(describe(name, found))
        below = getattr(found, "commands", {})
        known += [describe(f"{name} {each}", part) for each, part in below.items()]
    typer.echo(script(shell, known), nl=False)
