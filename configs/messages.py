"""Translates pydantic's errors: the rule that is broken, and one fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel

from frontrunner.configs import presets
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
#: Other trainers' names for our keys: Megatron-LM's, GPT-NeoX's, DeepSpeed's, torchtitan's, Hugging Face's.
_ELSEWHERE = {
    "tensor_model_parallel_size": "layout.tensor",
    "tensor_parallel_degree": "layout.tensor",
    "model_parallel_size": "layout.tensor",
    "pipeline_model_parallel_size": "layout.pipeline",
    "pipe_parallel_size": "layout.pipeline",
    "pipeline_parallel_degree": "layout.pipeline",
    "train_micro_batch_size_per_gpu": "layout.micro_batch_size",
    "per_device_train_batch_size": "layout.micro_batch_size",
    "train_batch_size": "training.global_batch_size",
    "batch_size": "training.global_batch_size",
    "gradient_accumulation_steps": "training.global_batch_size",
    "grad_accum_steps": "training.global_batch_size",
    "seq_length": "training.seq_len",
    "max_seq_len": "training.seq_len",
    "train_iters": "training.steps",
    "max_steps": "training.steps",
    "train_tokens": "training.tokens",
    "max_tokens": "training.tokens",
    "zero_optimization": "layout.sharding",
    "fsdp": "layout.sharding",
    "activation_checkpointing": "layout.recompute",
    "gradient_checkpointing": "layout.recompute",
    "gradient_clipping": "optimizer.clip",
    "clip_grad": "optimizer.clip",
    "max_grad_norm": "optimizer.clip",
    "min_lr": "optimizer.min_learning_rate",
    "save_interval": "checkpoint.every_steps",
    "data_path": "data.train",
    "tp": "layout.tensor",
    "sp": "layout.sequence_parallel",
    "pp": "layout.pipeline",
    "vpp": "layout.virtual_stages",
    "mbs": "layout.micro_batch_size",
    "zero_stage": "layout.sharding.preset",
    "gbs": "training.global_batch_size",
    "dtype": "training.precision",
    "lr": "optimizer.learning_rate",
    "num_nodes": "nodes",
}
#: Other trainers' words for our values.
_MEANS = {
    "fsdp": "zero3",
    "fsdp2": "zero3",
    "full_shard": "zero3",
    "shard_grad_op": "zero2",
    "no_shard": "ddp",
    "hybrid_shard": "hsdp",
    "mics": "hsdp",
    "zero++": "zeropp",
    "0": "ddp",
    "1": "zero1",
    "2": "zero2",
    "3": "zero3",
    "fp32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
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
        meant = nearest_key(loc)
        fix = f"did you mean {meant}?" if meant else f"use one of: {', '.join(_keys_at(loc[:-1]))}"
        return Violation(path, value, UNKNOWN_KEY, fix)
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


def _mapping_fix(loc: list[str]) -> str:
    keys = ", ".join(_model_at(loc).model_fields)
    return f"write keys under it ({keys}), or remove it"


def _not_a_choice(path: str, value: object, expected: str) -> Violation:
    choices = re.findall(r"'([^']*)'", expected)
    if path == "data":
        return Violation(path, value, "must be synthetic or a mapping", f"write data: {{train: {value}}}")
    constraint = f"must be {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}"
    meant = _MEANS.get(str(value).lower())
    near = [meant] if meant in choices else difflib.get_close_matches(str(value), choices, n=1)
    return Violation(path, value, constraint, f"did you mean {near[0]}?" if near else "choose one of them")


def nearest_key(loc: list[str]) -> str | None:
    """The most likely intended key: a sibling first, then keys elsewhere."""
    key, beside = loc[-1], _keys_at(loc[:-1])
    elsewhere = {path.rpartition(".")[2]: path for path in reversed(dotted_keys())} | _ELSEWHERE
    if key in elsewhere:
        return elsewhere[key]
    near = difflib.get_close_matches(key, beside, n=1) or [k for k in beside if k in key.split("_")]
    if near:
        return ".".join([*loc[:-1], near[0]])
    far = difflib.get_close_matches(key, elsewhere, n=1, cutoff=0.75)
    return elsewhere[far[0]] if far else None


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
