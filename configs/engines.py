"""The training engines: our own, and two to compare with."""

from __future__ import annotations

from typing import Literal, get_args

Engine = Literal["native", "deepspeed", "fsdp"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
