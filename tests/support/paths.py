"""Dotted paths: of the keys of a JSON schema, and of the values of a JSON object."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from frontrunner.configs.schema import RunSpec


@cache
def run_keys() -> frozenset[str]:
    """All dotted keys of a run, with * for a name that the user gives."""
    schema = RunSpec.model_json_schema()
    return frozenset(schema_keys(schema, schema["$defs"]))


def schema_keys(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys below a section of a JSON schema."""
    for name, part in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        for between, reference in _sections(part):
            below = definitions[reference.rpartition("/")[2]]
            yield from schema_keys(below, definitions, f"{prefix}{name}{between}.")


def _sections(part: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """References to sections in a key's schema, with what stands between: nothing, [] or .*"""
    for form in (part, *part.get("anyOf", ()), *part.get("oneOf", ())):
        if "$ref" in form:
            yield "", form["$ref"]
        if "$ref" in form.get("items", {}):
            yield "[]", form["items"]["$ref"]
        for values in (form.get("additionalProperties"), *form.get("patternProperties", {}).values()):
            if isinstance(values, dict) and "$ref" in values:
                yield ".*", values["$ref"]


def value_paths(value: object, prefix: str = "") -> Iterator[str]:
    """The path of each value in a JSON object, [] for each entry of a list of objects."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from value_paths(part, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for part in value:
            yield from value_paths(part, f"{prefix}[]")
    else:
        yield prefix


def unknown(found: object, documented: dict[str, str]) -> list[str]:
    """Paths of an object that no documented key covers; a word in capitals stands for any name."""
    patterns = [re.sub(r"\\\.[A-Z]+(?=\\\.|$)", r"\\.[^.]+", re.escape(key)) for key in documented]
    covers = re.compile("|".join(rf"{pattern}(?:\[\])?(?:\..*|\[\].*)?" for pattern in patterns))
    empty = {key.partition("[")[0] for key in documented}  # a list that is documented by its entries
    return sorted({path for path in value_paths(found) if not covers.fullmatch(path) and path not in empty})


def unseen(found: object, documented: dict[str, str]) -> list[str]:
    """Documented keys that an object does not hold, but for those below what is empty in it."""
    paths = set(value_paths(found))
    missing = []
    for key in documented:
        pattern = re.sub(r"\\\.[A-Z]+(?=\\\.|$)", r"\\.[^.]+", re.escape(key))
        below = any(re.fullmatch(rf"{pattern}(\[\])?([.\[].*)?", path) for path in paths)
        above = any(re.match(rf"{re.escape(path)}[.\[]", key) for path in paths)
        if not (below or above):
            missing.append(key)
    return missing
