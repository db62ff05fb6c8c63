"""The page on commands: options from the commands themselves, keys of ``--json`` from a file."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
import yaml

from frontrunner.launcher.cli import COMMANDS, build

JSON_KEYS = Path(__file__).with_name("json_keys.yaml")
_HEAD = """\
# Commands

`frontrunner COMMAND --help` prints the same. Results go to stdout, messages to stderr. With `--json` a
command prints one JSON object on stdout. [Exit codes](exit-codes.md) are the same for all commands.

The keys of `--json` are a contract: keys are added, none is renamed. In a key, `[]` stands for each entry
of a list, and a word in capitals for a name that varies. A figure that is not known is `null`.
"""


def command(name: str) -> Any:
    """One command, or group of commands, as click has it."""
    return typer.main.get_command(build([name])).commands[name]  # type: ignore[attr-defined]


def commands() -> Iterator[tuple[str, Any]]:
    """All commands with their full names, in the order of the help."""
    for name in COMMANDS:
        found = command(name)
        below = getattr(found, "commands", None)
        if below:
            yield from ((f"{name} {each}", part) for each, part in below.items())
        else:
            yield name, found


def json_keys() -> dict[str, dict[str, str]]:
    """By command: the keys of its object, dotted, and what each means."""
    found: dict[str, dict[str, str]] = yaml.safe_load(JSON_KEYS.read_text(encoding="utf-8"))
    return found


def page() -> str:
    known = json_keys()
    lines = [_HEAD]
    for name, found in commands():
        lines += [f"## {name}\n", *_purpose(found), *_usage(name, found), *_parameters(found)]
        for words in (each for each in known if each == name or each.startswith(f"{name} --")):
            option = words.removeprefix(name).strip()
            beside = f" with `{option}`" if option else ""
            lines += [f"Keys of `--json`{beside}:\n", *_table(known[words])]
    return "\n".join(lines)


def _purpose(found: Any) -> list[str]:
    return [inspect.cleandoc(found.help or ""), ""]


def _usage(name: str, found: Any) -> list[str]:
    arguments = [_argument(each) for each in found.params if each.param_type_name == "argument"]
    shown = " ".join(["frontrunner", name, *(text for text in arguments if text), "[OPTIONS]"])
    return ["```text", shown, "```", ""]


def _argument(parameter: Any) -> str:
    if getattr(parameter, "hidden", False):
        return ""
    text = parameter.metavar or parameter.name.upper()
    return text if parameter.required or text.startswith("[") else f"[{text}]"


def _parameters(found: Any) -> list[str]:
    hints = get_type_hints(inspect.unwrap(found.callback))
    shown = [each for each in found.params if not getattr(each, "hidden", False) and each.name != "help"]
    return [line for each in shown for line in _parameter(each, hints.get(each.name))]


def _parameter(parameter: Any, hint: Any) -> list[str]:
    is_option = parameter.param_type_name == "option"
    name = ", ".join(parameter.opts) if is_option else _argument(parameter).strip("[]")
    about = []
    if hint is not bool and (is_option or get_origin(hint) is Literal):
        about.append(_kind(parameter, hint))
    if parameter.required:
        about.append("required")
    elif _shows(parameter.default):
        about.append(f"default `{parameter.default}`")
    small = f' <span class="about">{" · ".join(about)}</span>' if about else ""
    return [f"`{name}`{small}", f":   {parameter.help or '-'}\n"]


def _kind(parameter: Any, hint: Any) -> str:
    """What to write after an option: choices, its own word, or what its type is called."""
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    literals = [part for part in _parts(hint) if get_origin(part) is Literal]
    if literals:
        return ", ".join(f"`{choice}`" for choice in get_args(literals[0]))
    for part in _parts(hint):
        if isinstance(part, type) and issubclass(part, Enum):
            return ", ".join(f"`{choice.value}`" for choice in part)
    kinds = {int: "whole number", float: "number", Path: "path", str: "text"}
    return next((kinds[part] for part in _parts(hint) if part in kinds), "text")


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _parts(part)


def _shows(default: Any) -> bool:
    return isinstance(default, str | int | float | Path) and not isinstance(default, bool)


def _table(known: dict[str, str]) -> list[str]:
    rows = [f"| `{key}` | {text} |" for key, text in known.items()]
    return ["| key | meaning |", "|---|---|", *rows, ""]
