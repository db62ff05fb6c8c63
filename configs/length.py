"""The length of a run in tokens."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from frontrunner.configs.types import LARGEST, say


def _whole(value: Any) -> Any:
    """A float without a fraction (300e9) as an integer; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Tokens = Annotated[
    int,
    Field(gt=0, le=LARGEST),
    BeforeValidator(_whole),
    say(f"must be a whole number of tokens from 1 to {LARGEST:.0e}", "write it like 300e9"),
]


def in_steps(training: dict[str, Any]) -> dict[str, Any]:
    """The keys of ``training`` with ``tokens`` turned into ``steps``, rounded up.

    ``seq_len`` and ``global_batch_size`` must be there. The keys stay as they are if one of the three numbers
    is missing or unusable: its own type says so.
    """
    given = [_whole(training.get("tokens")), training["seq_len"], training["global_batch_size"]]
    if any(type(number) is not int or not 0 < number <= LARGEST for number in given):
        return training
    tokens, *sequences = given
    rest = {key: value for key, value in training.items() if key != "tokens"}
    return rest | {"steps": -(-tokens // prod(sequences))}
