"""A key's type, as a JSON schema has it, in words."""

from __future__ import annotations

from typing import Any

from frontrunner.configs.slurm import OPTION, VARIABLE, WORD

_PATTERNS = {WORD: "word", r"^[0-9a-f]{2}$": "two hexadecimal digits"}
Schema = dict[str, Any]


def words(schema: Schema) -> str:
    """``whole number, at least 1``, ``none, selective or full``, ``list of words or null``."""
    forms = schema.get("anyOf") or schema.get("oneOf")
    if forms:
        return " or ".join(dict.fromkeys(words(form) for form in forms))
    if "$ref" in schema:
        return "section"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type")
    if kind in _WORDS:
        return _WORDS[kind](schema)
    return {"boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "any value")


def _number(schema: Schema) -> str:
    noun = "whole number" if schema["type"] == "integer" else "number"
    bounds = []
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    if schema["type"] == "integer" and above is not None:
        low, above = above + 1, None
    bounds += [f"at least {low}"] if low is not None else []
    bounds += [f"greater than {above}"] if above is not None else []
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    bounds += [f"at most {most}"] if most is not None and most < 2**50 else []
    bounds += [f"below {below}"] if below is not None and below < 2**31 else []
    return ", ".join([noun, *bounds])


def _text(schema: Schema) -> str:
    pattern = schema.get("pattern", "")
    if "dhms" in pattern:
        return "duration (`2h`, `1h30m`, `2:00:00`)"
    if pattern.startswith(r"^\d{4}"):
        return "date (`YYYY-MM-DD`)"
    return _PATTERNS.get(pattern, "text")


def _list(schema: Schema) -> str:
    if "prefixItems" in schema:
        return f"list of {len(schema['prefixItems'])} numbers"
    return f"list of {words(schema['items']).replace('section', 'sections')}"


def _mapping(schema: Schema) -> str:
    patterns = schema.get("patternProperties", {})
    if OPTION in patterns:
        return "mapping of option to text"
    if VARIABLE in patterns:
        return "mapping of variable to text or `null`"
    return "mapping"


_WORDS = {
    "integer": _number,
    "number": _number,
    "string": _text,
    "array": _list,
    "object": _mapping,
}
