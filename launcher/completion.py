"""Completion scripts for shells, made from the commands.

Everything that is fixed (commands, options, presets, keys) is in the script, and the shell looks for files
itself: pressing Tab starts no Python, which can take seconds on a cluster's file system.
"""

from __future__ import annotations

import importlib.resources
import inspect
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from frontrunner.configs import presets
from frontrunner.configs.messages import dotted_keys

SHELLS = ("bash", "zsh", "fish")
#: What an argument takes, by its word in the help; the same kinds are names in the scripts.
ARGUMENTS = {
    "RUN.yaml": "run",
    "RUN.yaml|RUN_DIR": "run",
    "RUN": "run",
    "SWEEP.yaml": "sweep",
    "MODEL": "model",
    "[NAME]": "preset",
    "RUN_DIR": "folder",
    "RUN_DIR...": "folder",
    "[RUN_DIR]...": "folder",
    "[FOLDER]...": "folder",
    "FILES": "file",
    "RUNS...": "file",
    "PATHS...": "file",
    "MORE_PATHS": "file",
    "SOURCE": "folder",
    "FOLDER": "folder",
    "KIND": "file",
    "KEY=VALUE": "key",
    "DIR": "folder",
}


_NONE: tuple[str, ...] = ()


@dataclass(frozen=True)
class Option:
    """``kind`` is what its value is, or empty if it takes none; ``choices`` are all its values, if few."""

    names: tuple[str, ...]
    help: str
    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """``name`` may be two words; ``kind`` and ``choices`` are those of its arguments."""

    name: str
    help: str
    options: tuple[Option, ...]
    kind: str = ""
    choices: tuple[str, ...] = ()


def script(shell: str, commands: Iterable[Command]) -> str:
    """The completion script of one of :data:`SHELLS`."""
    text = (
        importlib.resources.files("frontrunner.launcher").joinpath(f"completion.{shell}").read_text("utf-8")
    )
    known = [*commands]
    render = {"bash": _cases, "zsh": _cases, "fish": _fish}[shell]
    return text.replace("@WORDS@", _words(shell)).replace("@COMMANDS@", render(known))


def words() -> Mapping[str, tuple[str, ...]]:
    """The fixed values of each kind."""
    every = {str(kind): tuple(presets.names(kind)) for kind in presets.KINDS}
    return every | {
        "preset": tuple(dict.fromkeys(name for names in every.values() for name in names)),
        "key": tuple(f"{key}=" for key in dotted_keys()),
    }


def _words(shell: str) -> str:
    form = "set -g __frontrunner_{} {}" if shell == "fish" else "_frontrunner_{}='{}'"
    return "\n".join(form.format(kind, " ".join(found)) for kind, found in words().items())


def _cases(commands: list[Command]) -> str:
    """The body of a function that sets ``command``, ``options`` and ``kind`` from the words so far."""
    lines = ['for word in "${before[@]}"; do', '  case "$command:$word" in']
    for each in commands:
        above, _, last = each.name.rpartition(" ")
        lines.append(f"    {shlex.quote(f'{above}:{last}')}) command={shlex.quote(each.name)} ;;")
    lines += ["  esac", "done", 'case "$command" in']
    for each in [_top(commands), *commands]:
        names = " ".join(name for option in each.options for name in option.names)
        below = [other.name for other in commands if other.name.rpartition(" ")[0] == each.name]
        kind = f"words {' '.join(name.split()[-1] for name in below)}" if below else _kind(each)
        lines.append(f"  {shlex.quote(each.name)}) options={shlex.quote(names)} kind={shlex.quote(kind)} ;;")
    lines += ["esac", 'case "$command:$previous" in']
    for each in commands:
        for option in each.options:
            if option.kind or option.choices:
                pattern = "|".join(shlex.quote(f"{each.name}:{name}") for name in option.names)
                lines.append(f"  {pattern}) kind={shlex.quote(_kind(option))} options= ;;")
    return "\n".join([*lines, "esac"])


def _top(commands: list[Command]) -> Command:
    return Command("", "", (Option(("--help", "-h"), "", ""), Option(("--version",), "", "")))


def _kind(of: Command | Option) -> str:
    return f"words {' '.join(of.choices)}" if of.choices else of.kind


def _fish(commands: list[Command]) -> str:
    names = " ".join(shlex.quote(f" {each.name}") for each in commands)
    lines = [f"set -g __frontrunner_commands {names}"]
    for each in commands:
        above, _, last = each.name.rpartition(" ")
        about = shlex.quote(each.help)
        lines.append(f"complete -c frontrunner -n '__frontrunner_at {above}' -f -a {last} -d {about}")
        here = f"complete -c frontrunner -n '__frontrunner_at {each.name}'"
        for option in each.options:
            names = " ".join(f"-{'l' if len(n) > 2 else 's'} {n.lstrip('-')}" for n in option.names)
            value = f" -x -a {shlex.quote(_fish_values(option))}" if _kind(option) else ""
            lines.append(f"{here} {names}{value} -d {shlex.quote(option.help)}")
        if _kind(each):
            lines.append(f"{here} -f -a {shlex.quote(_fish_values(each))}")
    return "\n".join(lines)


def _fish_values(of: Command | Option) -> str:
    return " ".join(of.choices) if of.choices else f"(__frontrunner_values {of.kind})"


def describe(name: str, found: Any) -> Command:
    """A command of typer as a :class:`Command`."""
    options: list[Option] = []
    kind, choices = "", _NONE
    hints = get_type_hints(inspect.unwrap(found.callback)) if found.callback else {}
    for each in found.params:
        parts = [*_parts(hints.get(each.name, str))]
        values = _choices(parts) or _listed(each.help or "")
        if each.param_type_name == "argument":
            if not kind:
                kind, choices = ARGUMENTS.get(each.metavar or "", "file"), values
        elif not getattr(each, "hidden", False) and each.name != "help":
            about = " ".join((each.help or "").split())
            options.append(Option(tuple(each.opts), about, _value_kind(each, parts), values))
    options.append(Option(("--help", "-h"), "Show the options.", ""))
    return Command(name, found.get_short_help_str(200), tuple(options), kind, choices)


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield hint
    if get_origin(hint) is not Literal:
        for part in get_args(hint):
            yield from _parts(part)


def _choices(parts: Sequence[Any]) -> tuple[str, ...]:
    for part in parts:
        if get_origin(part) is Literal:
            return get_args(part)
        if isinstance(part, type) and issubclass(part, Enum):
            return tuple(each.value for each in part)
    return ()


def _listed(text: str) -> tuple[str, ...]:
    """The choices that a help text lists."""
    found = re.fullmatch(r"One of: ([\w, -]+)\.", text)
    return tuple(found[1].split(", ")) if found else ()


def _value_kind(option: Any, parts: Sequence[Any]) -> str:
    """What the value of an option is; empty for a switch."""
    if bool in parts:
        return ""
    if option.name == "machine":
        return "machine"
    return ARGUMENTS.get(option.metavar or "") or ("file" if Path in parts else "none")
