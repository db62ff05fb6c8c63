"""Dotted paths: of the keys of a JSON schema, and of the values of a JSON object."""

from __future__ import annotations

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
