"""Shortens a run file that was drafted whole: presets by name, and no key that says the default."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from frontrunner.configs import presets
from frontrunner.configs.load import Document, examine_keys, load_model
from frontrunner.configs.optimizer import OptimizerSpec
from frontrunner.configs.schema import LayoutSpec, ModelSpec, TrainingSpec

_MOST_CHANGES = 6
_SECTIONS: dict[str, type[BaseModel]] = {
    "layout": LayoutSpec,
    "training": TrainingSpec,
    "optimizer": OptimizerSpec,
    "model": ModelSpec,
}


def shorten(keys: dict[str, Any], document: Document, folder: Path) -> dict[str, Any]:
    """The same run in fewer keys; the whole of it if that would be another."""
    short = {key: _without_defaults(key, value) for key, value in keys.items()}
    model = keys.get("model")
    if isinstance(model, dict) and (named := _named(document.spec.model, model)) is not None:
        short["model"] = named
    short = {key: value for key, value in short.items() if value != {}}
    found = examine_keys(short, folder=folder, name=str(keys["name"]))
    whole = examine_keys(keys, folder=folder, name=str(keys["name"]))
    same = found.document is not None and whole.document is not None and _same(found.document, whole.document)
    return short if same else keys


def _same(one: Document, other: Document) -> bool:
    specs = [document.spec.model_dump() for document in (one, other)]
    for spec in specs:
        spec["model"] |= {"name": "", "sources": {}}
    return specs[0] == specs[1]


def _without_defaults(section: str, value: Any) -> Any:
    if section not in _SECTIONS or not isinstance(value, dict):
        return value
    fields = _SECTIONS[section].model_fields
    return {key: inner for key, inner in value.items() if not _is_default(fields.get(key), inner)}


def _is_default(field: FieldInfo | None, value: object) -> bool:
    if field is None or field.is_required() or field.default_factory is not None:
        return False
    default = list(field.default) if isinstance(field.default, tuple) else field.default
    return default == value and type(default) is type(value)


@cache
def _known() -> dict[str, dict[str, Any]]:
    """The fields of each model preset."""
    return {name: load_model(name).model_dump(exclude={"name", "sources"}) for name in presets.names("model")}


def _named(model: ModelSpec, given: dict[str, Any]) -> str | dict[str, Any] | None:
    """A preset's name, alone or with what differs, if that is little; None if no preset is near."""
    best: tuple[int, str, dict[str, Any]] | None = None
    own = model.model_dump(exclude={"name", "sources"})
    for name, known in _known().items():
        if any(
            known[key] != own[key] for key in ("num_layers", "hidden_size", "num_heads", "ffn_hidden_size")
        ):
            continue
        changes = {key: value for key, value in own.items() if known[key] != value}
        if best is None or len(changes) < best[0]:
            best = (len(changes), name, changes)
    if best is None or best[0] > _MOST_CHANGES:
        return None
    return best[1] if not best[2] else {"extends": best[1], **best[2]}
