"""What belongs to one rank of one layout: random states and error feedback.

It is restored if the layout of the ranks is unchanged, and starts over otherwise.
"""

from __future__ import annotations

from typing import Any

import torch

from frontrunner.parallelism.runtime.checkpoint.pieces import Piece
from frontrunner.parallelism.runtime.random_state import random_states, set_random_states
from frontrunner.parallelism.runtime.trainer import Trainer


def same_ranks(trainer: Trainer) -> dict[str, Any]:
    """What must be equal for a rank's own state to stay valid."""
    spec = trainer.spec
    wires = spec.layout.sharding.wires(spec.training.precision)
    return {
        **trainer.groups.layout.describe(),
        "precision": spec.training.precision,
        "micro_batch_size": spec.layout.micro_batch_size,
        "device": trainer.device.type,
        "block": wires.block,
        "error_feedback": wires.error_feedback,
    }


def rank_pieces(trainer: Trainer) -> list[Piece]:
    """This rank's own state: copies of its random states, views of its residuals."""
    found = [_piece(trainer, f"random/{name}", s) for name, s in random_states(trainer.device).items()]
    return found + residual_pieces(trainer)


def residual_pieces(trainer: Trainer) -> list[Piece]:
    units = enumerate(trainer.engine.units)
    return [
        _piece(trainer, f"residual/{index}", unit.residual)
        for index, unit in units
        if unit.residual is not None
    ]


def random_pieces(trainer: Trainer) -> dict[str, Piece]:
    """Empty storage for this rank's random states, by name."""
    states = random_states(trainer.device)
    return {
        name: _piece(trainer, f"random/{name}", torch.empty_like(state)) for name, state in states.items()
    }


def put_back(trainer: Trainer, pieces: dict[str, Piece]) -> None:
    """Set the random states that ``pieces`` hold."""
    set_random_states({name: piece.values for name, piece in pieces.items()}, trainer.device)


def what_is_lost(trainer: Trainer) -> str | None:
    """What starts over in another layout, in words; None if nothing does."""
    model = trainer.spec.model
    lost = ["error feedback"] if any(unit.residual is not None for unit in trainer.engine.units) else []
    lost += ["random states of dropout"] if model.attention_dropout or model.hidden_dropout else []
    return " and ".join(lost) if lost else None


def _piece(trainer: Trainer, name: str, values: torch.Tensor) -> Piece:
    return Piece(f"rank {trainer.groups.rank}/{name}", tuple(values.shape), (0,), values)
