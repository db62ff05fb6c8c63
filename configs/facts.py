"""What the rules between values read, and the numbers that their fixes offer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from typing import Any

from frontrunner.configs import legal
from frontrunner.configs.errors import Violation
from frontrunner.configs.validate import Outcome

LARGEST_CHOICE = 4096
#: Run file keys of the fields of a :class:`legal.Cut`.
PLACES = {
    **{
        key: f"model.{key}"
        for key in ("num_layers", "num_heads", "num_kv_heads", "head_dim", "ffn_hidden_size")
    },
    "padded_vocab_size": "model.padded_vocab_size",
    "expert_ffn_hidden_size": "model.experts.ffn_hidden_size",
    "num_experts": "model.experts.num_experts",
    **{
        key: f"layout.{key}"
        for key in ("tensor", "sequence_parallel", "pipeline", "virtual_stages", "micro_batch_size", "expert")
    },
    **{key: f"training.{key}" for key in ("seq_len", "global_batch_size")},
    "nodes": "nodes",
}


class UnknownError(Exception):
    """A rule needs a value that could not be read."""


class Facts:
    """The values of a run by dotted key."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def __call__(self, path: str) -> Any:
        if not self.outcome.knows(path):
            raise UnknownError(path)
        return reduce(getattr, path.split("."), self.outcome.spec)

    def broken(
        self, path: str, constraint: str, fix: str, others: Mapping[str, str] | None = None
    ) -> Violation:
        """A violation at a key; ``others`` says the same at the other keys of the rule."""
        return Violation(path, self(path), constraint, fix).at(others or {})

    @property
    def devices_per_node(self) -> int:
        return int(self("machine.packages_per_node") * self("machine.devices_per_package"))

    def cut(self, *keys: str) -> legal.Cut:
        """The layout with only these fields: a rule must read no others. Raises UnknownError."""
        known = {key: int(self(PLACES[key])) for key in keys if key != "devices_per_node"}
        if "devices_per_node" in keys:
            known["devices_per_node"] = self.devices_per_node
        return legal.Cut(**{field.name: known.get(field.name) for field in fields(legal.Cut)})


def divisors(number: int) -> list[int]:
    return [d for d in range(1, min(number, LARGEST_CHOICE) + 1) if number % d == 0]


def multiples(number: int, of: int) -> list[int]:
    """The nearest multiples below and above a number."""
    below = number // of * of
    return [m for m in (below, below + of) if m]


def use(choices: list[int], near: int | None = None) -> str:
    """``use 1, 2, 4 or 8``: at most six choices, the nearest ones."""
    return f"use {choice(choices, near)}"


def choice(choices: list[int], near: int | None = None) -> str:
    """``1, 2, 4 or 8``: at most six choices, the nearest ones."""
    shown = choices if near is None else sorted(sorted(choices, key=lambda c: abs(c - near))[:6])
    *others, last = map(str, shown)
    return f"{', '.join(others)} or {last}" if others else last
