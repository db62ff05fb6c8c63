"""Combinations of a model's keys that a trainer would build as another model: a table per trainer.

A trainer derives some settings from others, so that a model can be another one although each of its keys has
an option. A :class:`Combination` is one such case: what the trainer would build, and the change that gives a
model which it builds as we do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from frontrunner.configs.errors import show_value
from frontrunner.configs.schema import ModelSpec
from frontrunner.launcher.exporters.target import Refusals

Change = Mapping[str, object]
"""The same new value for each key of ``model``; empty: no change of keys helps."""


@dataclass(frozen=True)
class Combination:
    """One case: ``key`` is reported if ``when`` holds.

    ``builds`` says what the trainer would build; ``{m.key}`` in it is replaced by a value of the model.
    ``change`` gives the keys to change.
    """

    key: str
    when: Callable[[ModelSpec], bool]
    builds: str
    change: Callable[[ModelSpec], Change]


def refuse(refusals: Refusals, model: ModelSpec, table: Iterable[Combination]) -> None:
    """Record a violation for each case of the table that the model is."""
    for row in table:
        if row.when(model):
            reason = row.builds.format(m=model)
            fix = _instruction(row.key, row.change(model))
            refusals.unless(False, f"model.{row.key}", getattr(model, row.key), reason, fix)


def _instruction(key: str, change: Change) -> str:
    if not change:
        return "export to another trainer"
    if list(change) == [key]:
        return f"use {show_value(change[key])}"
    names = " and ".join(f"model.{name}" for name in change)
    (value,) = {show_value(value) for value in change.values()}
    return f"set {names} to {value}"


def rotary_scaling(model: ModelSpec) -> float | None:
    """The factor of the frequency scaling, None where it changes nothing."""
    factor = model.rotary_scaling_factor
    return None if model.position_embedding != "rotary" or factor == 1.0 else factor


def positions(model: ModelSpec, seq_len: int) -> int:
    """``max_position_embeddings`` for trainers that want at least a sequence; no size with rotary ones."""
    rotary = model.position_embedding == "rotary"
    return max(model.max_position_embeddings, seq_len) if rotary else model.max_position_embeddings


def padding_notes(model: ModelSpec) -> list[str]:
    """Of trainers whose loss counts the padded rows of the vocabulary, which ours leaves out."""
    extra = model.padded_vocab_size - model.vocab_size
    if not extra:
        return []
    return [f"its loss also counts the {extra} padded rows of the vocabulary, so it starts a little higher"]


#: Trainers without norms of queries and keys, and those whose layers have all norms before.
NO_QK_NORM = Combination(
    "qk_norm",
    lambda m: m.qk_norm != "none",
    "it has no such norms of queries and keys",
    lambda m: {"qk_norm": "none"},
)
NORMS_BEFORE = Combination(
    "norm_position",
    lambda m: m.norm_position == "after",
    "its norms come before attention and the MLP",
    lambda m: {"norm_position": "before"},
)

#: A whole number is all that both Megatron-LM's and GPT-NeoX's type of the option holds.
WHOLE_BASE = Combination(
    "rotary_base",
    lambda m: m.position_embedding == "rotary" and m.rotary_base != int(m.rotary_base),
    "its rotary base is a whole number, so positions would turn at other rates",
    lambda m: {"rotary_base": float(max(1, round(m.rotary_base)))},
)
