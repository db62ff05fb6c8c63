"""The JSON schema of a run file as people write it, for editors and other tools.

Derived from the types of a resolved run (``schema.py``): every key has a default or may come from a file
that is extended, ``model`` and ``machine`` may be named, and so may the sharding.
"""

from __future__ import annotations

from typing import Any

from frontrunner.configs import presets
from frontrunner.configs.presets import Kind
from frontrunner.configs.schema import RunSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILES = {"type": "string", "pattern": r"/|\.(ya?ml|json)$", "description": "A file, relative to this one."}


def run_file_schema() -> dict[str, Any]:
    """What a run file may hold, as plain data."""
    schema = _without(RunSpec.model_json_schema(), "title")
    required = [key for key in schema.pop("required") if key in ("model", "machine", "data")]
    definitions, properties = schema["$defs"], schema["properties"]
    for definition in definitions.values():
        definition.pop("required", None)
    components: dict[Kind, str] = {"model": "ModelSpec", "machine": "MachineSpec"}
    for kind, name in components.items():
        definitions[name]["properties"]["extends"] = {
            "anyOf": _names(kind),
            "description": "A preset or a file that gives the other fields.",
        }
        properties[kind] = {
            "anyOf": [*_names(kind), properties[kind]],
            "description": "A preset, a file, or the fields themselves.",
        }
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


def _names(kind: Kind) -> list[dict[str, Any]]:
    return [{"enum": presets.names(kind)}, FILES]


def _without(schema: Any, key: str) -> Any:
    """The schema without pydantic's titles, which repeat the keys; a property of that name stays."""
    if isinstance(schema, list):
        return [_without(part, key) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {k: _without(part, key) for k, part in schema.items() if k != key or not isinstance(part, str)}
