"""``frontrunner export``: a run as another trainer's configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.launcher.display.terminal import say, tell
from frontrunner.launcher.exporters import deepspeed, gpt_neox, megatron, megatron_deepspeed, torchtitan
from frontrunner.launcher.outputs import check_outputs
from frontrunner.launcher.verify import verified

TARGETS = {
    trainer.TARGET.name: trainer.TARGET
    for trainer in (megatron, megatron_deepspeed, deepspeed, gpt_neox, torchtitan)
}


def export(
    run: Annotated[str, typer.Argument(metavar="RUN.yaml", help="A run file or preset.")],
    to: Annotated[str, typer.Option(metavar="TRAINER", help=f"One of: {', '.join(TARGETS)}.")],
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override", "-o", metavar="KEY=VALUE", help="Override a key, e.g. layout.tensor=4 (repeatable)."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write (default: standard output).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Export a run to another trainer's configuration, or list what it does not support."""
    if to not in TARGETS:
        raise SpecError(
            [Violation("--to", to, "is not a known trainer", f"use one of: {', '.join(TARGETS)}")]
        )
    check_outputs({"--output": output})
    document, layout = verified(run, override or [])
    target = TARGETS[to]
    exported = target.export(document.spec, layout)
    notes = list(exported.notes)
    if document.spec.training.compile and not target.compiles:
        notes.append("training.compile is left out: layers are not compiled there")
    if output:
        output.write_text(exported.text + "\n")
    if as_json:
        found = {"outputs": [str(output)] if output else [], "text": exported.text}
        typer.echo(json.dumps(found | {"checked": target.checked, "notes": notes}))
        return
    for note in notes:
        say(f"# {note}")
    if output:
        tell(f"wrote {output}")
    else:
        typer.echo(exported.text)
