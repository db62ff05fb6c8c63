"""The settings that a trainer printed into its log when it started."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.yaml_tree import show_path
from frontrunner.launcher.importers.settings import Given, Setting

_TRAINERS = {
    "gpt-neox": "gpt-neox",
    "megatron-deepspeed": "megatron-deepspeed",
    "megatron-lm": "megatron",
    "primus": "megatron",
    "torchtitan": "torchtitan",
}


def read(path: Path) -> Given:
    """SpecError for a log without settings, or of a trainer whose settings are not read."""
    from frontrunner.analysis.importers.formats import read as read_log

    shown = show_path(path)
    try:
        found = read_log(path, path.stem)
    except OSError as error:
        raise SpecError([_wrong(shown, f"cannot be read: {error.strerror or error}")]) from None
    if isinstance(found, str):
        raise SpecError([_wrong(shown, found)])
    log, _ = found
    trainer = _TRAINERS.get(log.format)
    if trainer is None or not log.settings:
        titles = "Megatron-LM, Megatron-DeepSpeed, GPT-NeoX and torchtitan"
        raise SpecError([_wrong(shown, f"does not print its trainer's settings, as logs of {titles} can")])
    given = Given(trainer, path.name.split(".")[0])
    given.machine = log.machine
    put(given.settings, {key: _literal(value) for key, value in log.settings.items()}, "", shown)
    if log.devices:
        given.settings.setdefault("world_size", Setting("world_size", log.devices, shown))
    given.printed = True
    return given


def put(into: dict[str, Setting], tree: Mapping[str, Any], above: str, shown: str) -> None:
    """Nested values by dotted key."""
    for key, value in tree.items():
        dotted = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value:
            put(into, value, dotted, shown)
        elif value is not None:
            into[dotted if above else dotted.lstrip("-").replace("-", "_")] = Setting(dotted, value, shown)


def _literal(value: object) -> Any:
    """A value that was printed as Python writes it."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def _wrong(shown: str, what: str) -> Violation:
    return Violation("", None, what, "give the trainer's script or configuration", shown)
