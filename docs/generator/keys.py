"""The keys of a type that users write: path, type, default, unit and description of each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from frontrunner.configs.types import descriptions
from generator.schema_types import words

#: What stands for the names in sections that users name.
NAMES = {"software": "YEAR", "queues": "NAME", "recipes": "DATE", "sources": "KEY", "space": "KEY"}
_UNITS = {
    "_bytes_per_s": "bytes/s",
    "_bytes_per_s_per_node": "bytes/s",
    "_flops_per_s": "FLOP/s",
    "flops_per_s": "FLOP/s",
    "_bytes": "bytes",
    "_minutes": "minutes",
    "_steps": "steps",
    "_s": "seconds",
}
_OWN_UNITS = {
    "seq_len": "tokens",
    "global_batch_size": "sequences",
    "micro_batch_size": "sequences",
    "validation_samples": "sequences",
    "steps": "steps",
    "keep_every": "steps",
    "node_hours": "node-hours",
    "block": "elements",
    "rings.package": "bytes/s",
    "rings.node": "bytes/s",
    "rings.whole_nodes": "bytes/s",
    "rings.across_nodes": "bytes/s",
    "rings.point_to_point": "bytes/s",
}
#: Sections that the loader fills in, so that a file may leave them out.
_FILLED = ("training",)
_DEFAULT = re.compile(r"\s*\(default: ([^()]*(?:\([^()]*\))?[^()]*)\)")


@dataclass(frozen=True)
class Key:
    """One key; ``below`` are the keys of a section."""

    path: str
    type: str
    default: str | None
    unit: str | None
    description: str
    below: tuple[Key, ...] = ()


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """The keys of a type, in the order of its fields."""
    schema, told = model.model_json_schema()["properties"], descriptions(model)
    for name, field in model.model_fields.items():
        written = field.alias or name
        said = field.description or told.get(name, "")
        yield _key(f"{prefix}{written}", field, schema[written], said)


def _key(path: str, field: FieldInfo, schema: dict[str, Any], said: str) -> Key:
    last = path.rpartition(".")[2]
    section = _section(field.annotation)
    below: tuple[Key, ...] = ()
    kind = words(schema)
    if section is not None:
        held = kind.partition(" ")[0]
        name = f".{NAMES.get(last, 'NAME')}" if held == "mapping" else "[]" if held == "list" else ""
        below = tuple(keys(section, f"{path}{name}."))
        kind = f"mapping of {NAMES.get(last, 'NAME')} to section" if held == "mapping" else kind
    text = " ".join(said.split())
    told = _DEFAULT.search(text)
    # What another sentence of the page would only say again.
    default = told[1] if told else None if path in _FILLED else _default(field, section)
    return Key(path, kind, default, _unit(path), _DEFAULT.sub("", text), below)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The type of section that a key holds, alone, in a list or by name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section(part) for part in get_args(annotation))
    return next((part for part in found if part is not None), None)


def _default(field: FieldInfo, section: type[BaseModel] | None) -> str | None:
    """None for a section, whose keys have defaults of their own."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel) or (section is not None and value is None):
        return None if isinstance(value, BaseModel) else "`null`"
    if isinstance(value, float) and (abs(value) >= 1e5 or 0 < abs(value) < 1e-3):
        return f"`{value:g}`"
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"


def _unit(path: str) -> str | None:
    for name, unit in _OWN_UNITS.items():
        if f".{path}".endswith(f".{name}"):
            return unit
    ending = max((end for end in _UNITS if path.endswith(end)), key=len, default=None)
    return _UNITS[ending] if ending else None
