"""``frontrunner init``: write a short run file."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from frontrunner.configs import presets
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.load import load_machine, load_model
from frontrunner.launcher.display.terminal import say
from frontrunner.launcher.written import check_free, write_text
from frontrunner.run_folder import files

_DATA = "the PREFIX of PREFIX.bin and PREFIX.idx, or synthetic"


def init(
    model: Annotated[
        str | None, typer.Option(help="A model preset or file, or a folder with a config.json.")
    ] = None,
    machine: Annotated[str | None, typer.Option(help="A machine preset or file.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="A prepared corpus, or synthetic to measure speed.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Number of nodes (default: the fewest that fit).")] = None,
    tokens: Annotated[
        float | None, typer.Option(help="Tokens to train on, e.g. 300e9 (default: a trial of few steps).")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Account to charge.")] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The run file to write.")] = Path(files.SPEC),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a short run file, with a layout that the planner chose. Asks for what is not given."""
    from frontrunner.launcher.commands.plan import check_tokens
    from frontrunner.launcher.draft import Wish, draft

    check_free(output, force, "--output")
    check_tokens(tokens)
    asks = _on_a_terminal() and not as_json
    if asks:
        model = model or _asked(f"Model ({', '.join(presets.names('model'))}, or a folder)", load_model)
        machine = machine or _asked(f"Machine ({', '.join(presets.names('machine'))})", load_machine)
        data = data or _asked(f"Data ({_DATA})")
        if nodes is None and (count := _number("Nodes (empty: the fewest that fit)", int)) is not None:
            nodes = int(count)
        tokens = tokens or _number("Tokens, such as 300e9 (empty: a trial of few steps)", float)
        check_tokens(tokens)
    if model is None or machine is None or data is None:
        raise SpecError(_missing(model, machine, data))
    whole = None if tokens is None else round(tokens)
    found = draft(Wish(model, machine, data, nodes, whole, account, output))
    write_text(output, found.text, force, "--output")
    for remark in found.remarks:
        say(remark)
    if as_json:
        typer.echo(json.dumps({"outputs": [str(output)]}))
        return
    typer.echo(f"wrote {output}")
    say(f"next: frontrunner plan {output}, frontrunner submit {output} --dry-run")


def _on_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _asked(question: str, check: Callable[[str], object] | None = None) -> str:
    """An answer that ``check`` accepts."""
    while True:
        answer = str(typer.prompt(question, err=True)).strip()
        try:
            if check:
                check(answer)
            return answer
        except SpecError as error:
            say(str(error))


def _number(question: str, kind: Callable[[str], float]) -> float | None:
    """An answer of that kind; None for an empty one."""
    while True:
        answer = str(typer.prompt(question, default="", show_default=False, err=True)).strip()
        try:
            return kind(answer) if answer else None
        except ValueError:
            say(f"{answer}: not a number")


def _missing(model: str | None, machine: str | None, data: str | None) -> list[Violation]:
    fixes = {
        "--model": (model, f"use one of: {', '.join(presets.names('model'))}, or a model's folder"),
        "--machine": (machine, f"use one of: {', '.join(presets.names('machine'))}, or a machine file"),
        "--data": (data, f"give {_DATA}"),
    }
    return [Violation(name, None, "is missing", fix) for name, (given, fix) in fixes.items() if not given]
