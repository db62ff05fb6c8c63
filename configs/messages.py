"""Translates pydantic's errors: the rule that is broken, and one fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel

from frontrunner.configs import other_trainers, presets
from frontrunner.configs.errors import Violation
from frontrunner.configs.schema import RunSpec

UNKNOWN_KEY = "unknown key"

_SORTS = {
    "int_type": ("must be an integer", "write digits only, without quotes, decimal point or exponent"),
    "float_type": ("must be a finite number", "write digits without quotes"),
    "bool_type": ("must be true or false", "write true or false, without quotes"),
    "string_type": ("must be text", "put it in quotes"),
    "string_unicode": ("must be valid Unicode text", "write it in UTF-8"),
    "string_too_short": ("must not be empty", "write a value or remove the key"),
}
_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_MISSING = {
    "model": "add a preset, a folder with a Hugging Face config.json or the fields themselves",
    "machine": "add a preset, a file or the fields themselves",
    "data": "add `data: synthetic`, or `data: {train: PREFIX}` with a prepared corpus",
}


def location(error: Any) -> list[str]:
    """The key path of a pydantic error."""
    loc = [str(part) for part in error["loc"]]
    if error["type"] == "literal_error" and loc[-1] == "[key]":  # pydantic's word for the key itself
        loc.pop()
    return loc[:1] + loc[2:] if loc[0] == "data" else loc  # the second part is the union's tag


def violation(error: Any) -> Violation | None:
    """A pydantic error without its location; None if it is only a consequence of another."""
    kind, loc, context = error["type"], location(error), error.get("ctx", {})
    path, value = ".".join(loc), error["input"]
    if kind == "default_factory_not_called" or kind == "missing" and loc[0] == "training":
        return None
    if kind == "missing":
        return Violation(path, None, "is missing", _missing_fix(path))
    if kind == "extra_forbidden":
        return Violation(path, value, UNKNOWN_KEY, _meant(loc, value))
    if kind == "said":
        return Violation(path, value, context["message"], context["fix"])
    if kind == "literal_error":
        return _not_a_choice(path, value, context["expected"])
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        limit = f"{context[name]:g}" if isinstance(context[name], float) else str(context[name])
        fix = f"use {limit}" if name in ("ge", "le") else f"use a number {words} {limit}"
        return Violation(path, value, f"must be {words} {limit}", fix)
    if kind in ("model_type", "dict_type"):
        return Violation(path, value, f"must be a mapping, not {_sort(value)}", _mapping_fix(loc))
    constraint, fix = _SORTS.get(kind, (str(error["msg"]), "see `frontrunner schema`"))
    if kind.endswith("_type"):
        constraint = f"{constraint}, not {_sort(value)}"
    return Violation(path, value, constraint, fix)


def _sort(value: object) -> str:
    """The type of a value, in YAML terms."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "an integer" if isinstance(value, int) else "a number with a decimal point or exponent"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping"


def _missing_fix(path: str) -> str:
    section = path.partition(".")[0]
    if path in ("model", "machine"):
        names = presets.names("model" if path == "model" else "machine")
        return f"{_MISSING[path]}: {', '.join(names)}"
    if section in ("model", "machine"):
        return f"add it, or set `extends` under {section} to a preset"
    return _MISSING.get(path, "add it")


def _meant(loc: list[str], value: object) -> str:
    """What to write in place of an unknown key."""
    if written := other_trainers.as_written(loc[-1], value):
        return f"write {written}"
    meant = nearest_key(loc)
    if meant is None:
        return f"use one of: {', '.join(_keys_at(loc[:-1]))}"
    unit = other_trainers.UNITS.get(other_trainers.plain(loc[-1]))
    return f"did you mean {meant} ({unit})?" if unit else f"did you mean {meant}?"


def _mapping_fix(loc: list[str]) -> str:
    keys = ", ".join(_model_at(loc).model_fields)
    return f"write keys under it ({keys}), or remove it"


def _not_a_choice(path: str, value: object, expected: str) -> Violation:
    choices = re.findall(r"'([^']*)'", expected)
    if path == "data":
        return Violation(path, value, "must be synthetic or a mapping", f"write data: {{train: {value}}}")
    constraint = f"must be {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}"
    meant = other_trainers.VALUES.get(str(value).lower())
    near = [meant] if meant in choices else difflib.get_close_matches(str(value), choices, n=1)
    return Violation(path, value, constraint, f"did you mean {near[0]}?" if near else "choose one of them")


def nearest_key(loc: list[str]) -> str | None:
    """The most likely intended key: a sibling first, then keys elsewhere."""
    key, beside = other_trainers.plain(loc[-1]), _keys_at(loc[:-1])
    if meant := our_key(key):
        return meant
    near = difflib.get_close_matches(key, beside, n=1) or [k for k in beside if k in key.split("_")]
    if near:
        return ".".join([*loc[:-1], near[0]])
    far = difflib.get_close_matches(key, _everywhere(), n=1, cutoff=0.75)
    return _everywhere()[far[0]] if far else None


def our_key(key: str) -> str | None:
    """The dotted key that a word means by itself, ours or another trainer's; None if there is none."""
    return _everywhere().get(other_trainers.plain(key))


@lru_cache
def _everywhere() -> dict[str, str]:
    own = {path.rpartition(".")[2]: path for path in reversed(dotted_keys())}
    return own | other_trainers.KEYS


def _keys_at(keys: list[str]) -> list[str]:
    extends = ["extends"] if keys in ([], ["model"], ["machine"]) else []
    return [*_model_at(keys).model_fields, *extends]


def _model_at(keys: list[str]) -> type[BaseModel]:
    """The type of the mapping at ``keys``."""
    model: type[BaseModel] = RunSpec
    for key in keys:
        if key in model.model_fields:
            model = next(_models_in(model.model_fields[key].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


@lru_cache
def dotted_keys() -> tuple[str, ...]:
    """Every key of a run file, most used sections first."""

    def below(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for key, field in model.model_fields.items():
            yield f"{prefix}{key}"
            for child in _models_in(field.annotation):
                yield from below(child, f"{prefix}{key}.")

    order = {"layout": 0, "training": 1, "optimizer": 2, "data": 3}
    return tuple(sorted(below(RunSpec, ""), key=lambda path: order.get(path.partition(".")[0], 4)))
