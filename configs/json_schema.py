"""The JSON schemas of run and sweep files, for editors and other tools.

The run schema is derived from the types of a resolved run (``schema.py``). Every key is optional, because it
has a default or may come from an extended file. ``model``, ``machine`` and the sharding may be names. The
space of the sweep schema (``sweep.py``) has the dotted keys of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.presets import Kind
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sweep import ACCUMULATION, OWN_KEYS, SweepSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILES = {
    "type": "string",
    "pattern": r"/|\.(ya?ml|json)$",
    "description": "A file (or a model's folder), relative to this file.",
}


def run_file_schema() -> dict[str, Any]:
    """The JSON schema of run files."""
    schema = _without(RunSpec.model_json_schema(), "title")
    required = [key for key in schema.pop("required") if key in ("model", "machine", "data")]
    definitions, properties = schema["$defs"], schema["properties"]
    for definition in definitions.values():
        definition.pop("required", None)
    components: dict[Kind, str] = {"model": "ModelSpec", "machine": "MachineSpec"}
    for kind, name in components.items():
        definitions[name]["properties"]["extends"] = {
            "anyOf": _names(kind),
            "description": "A preset or file for the other fields.",
        }
        properties[kind] = {
            "anyOf": [*_names(kind), properties[kind]],
            "description": "A preset, a file, or the fields themselves.",
        }
    both = {"required": ["steps", "tokens"], "properties": {"tokens": {"type": "number"}}}
    definitions["TrainingSpec"]["not"] = both  # of two lengths of a run
    sharding = definitions["LayoutSpec"]["properties"]["sharding"]
    preset = definitions["ShardingSpec"]["properties"]["preset"]["anyOf"][0]
    definitions["LayoutSpec"]["properties"]["sharding"] = {
        "anyOf": [preset, {"$ref": sharding["$ref"]}],
        "description": sharding["description"],
    }
    parent = {"anyOf": _names("run"), "description": "A run file or preset whose keys this one overrides."}
    return {
        "$schema": DIALECT,
        "title": "frontrunner run",
        **schema,
        "properties": {"extends": parent, **properties},
        "anyOf": [{"required": ["extends"]}, {"required": required}],
    }


def sweep_file_schema() -> dict[str, Any]:
    """The JSON schema of sweep files."""
    run = run_file_schema()
    schema = _without(SweepSpec.model_json_schema(), "title")
    definitions, properties = run["$defs"] | schema["$defs"], schema["properties"]
    axis = definitions["AxisSpec"]
    axis["anyOf"] = [{"required": ["choices"]}, {"required": ["from", "to"]}]
    keys = {key: part for key, part in _dotted_keys(run, run["$defs"]) if key not in OWN_KEYS}
    keys[ACCUMULATION] = {
        "type": "integer",
        "minimum": 1,
        "description": "Gradient accumulation steps; sets the global batch size.",
    }
    free = [key for key, part in keys.items() if any("additionalProperties" in form for form in _forms(part))]
    return {
        "$schema": DIALECT,
        "title": "frontrunner sweep",
        **schema,
        "$defs": definitions,
        "required": ["base", "space"],
        "properties": properties
        | {
            "base": {"anyOf": _names("run"), "description": "The run file or preset to vary."},
            "space": {
                "type": "object",
                "description": "Keys to vary, each with a list of values or a range.",
                "minProperties": 1,
                "properties": {key: _axis(part) for key, part in keys.items()},
                "patternProperties": {f"^{re.escape(key)}\\.": _axis({}) for key in free},
                "additionalProperties": False,
            },
        },
    }


def _axis(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a key's axis, from the schema of one value."""
    said = {key: value[key] for key in ("description",) if key in value}
    values = {"type": "array", "minItems": 1, "uniqueItems": True, "items": value}
    return {"anyOf": [values, {"$ref": "#/$defs/AxisSpec"}], **said}


def _dotted_keys(
    schema: dict[str, Any], definitions: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """All keys that take a single value, at any depth, with the schemas of their values."""
    for key, part in schema.get("properties", {}).items():
        if key == "extends":
            continue
        if "$ref" not in part:  # a section has keys but no value
            yield f"{prefix}{key}", part
        for form in _forms(part):
            below = definitions[form["$ref"].rpartition("/")[2]] if "$ref" in form else {}
            yield from _dotted_keys(below, definitions, f"{prefix}{key}.")


def _forms(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [part, *part.get("anyOf", ()), *part.get("oneOf", ())]


def _names(kind: Kind) -> list[dict[str, Any]]:
    return [{"enum": presets.names(kind)}, FILES]


def _without(schema: Any, key: str) -> Any:
    """The schema without pydantic's titles, which repeat the keys; a property named ``title`` stays."""
    if isinstance(schema, list):
        return [_without(part, key) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: _without(part, key) for k, part in schema.items() if k != key or not isinstance(part, str)}
