"""OmegaConf's ``${...}`` in settings: references to other settings, and NeMo's arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from frontrunner.launcher.importers.settings import Setting, number

_INNERMOST = re.compile(r"\$\{([^${}]*)\}")
_MOST = 20
_ARITHMETIC = {
    "multiply": lambda a, b: a * b,
    "divide_ceil": lambda a, b: -(-a // b),
    "divide_floor": lambda a, b: a // b,
}


def resolved(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings with references filled in; what only the trainer can fill in stays as it is."""
    return {
        key: replace(setting, value=_value(key, setting.value, settings)) for key, setting in settings.items()
    }


def _value(key: str, value: object, settings: Mapping[str, Setting]) -> object:
    if not isinstance(value, str) or "${" not in value:
        return value
    text = value
    for _ in range(_MOST):
        match = _INNERMOST.search(text)
        found = _one(key, match[1], settings) if match else None
        if match is None or found is None:
            break
        text = text[: match.start()] + found + text[match.end() :]
    exact = number(text)
    return int(exact) if exact is not None and exact == int(exact) else text


def _one(key: str, inside: str, settings: Mapping[str, Setting]) -> str | None:
    """What stands for ``multiply:4, 5``, ``.sibling``, ``..uncle.key`` or ``section.key``."""
    function, colon, words = inside.partition(":")
    if colon:
        numbers = [number(word) for word in words.split(",")]
        known = _ARITHMETIC.get(function)
        if (
            known is None
            or len(numbers) != 2
            or None in numbers
            or (numbers[1] == 0 and function != "multiply")
        ):
            return None
        return f"{known(*numbers):.17g}"
    name = inside.removeprefix("training.")
    dots = len(inside) - len(inside.lstrip("."))
    if dots:
        above = key.split(".")[:-dots]
        name = ".".join([*above, inside[dots:]])
    setting = settings.get(name)
    if setting is None or setting.value is None or isinstance(setting.value, list | dict):
        return None
    return str(setting.value)
