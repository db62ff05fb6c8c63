"""When each stage of a pipeline computes what: 1F1B and its interleaved form (arXiv 2104.04473, section 2.2).

The order is that of megatron-core's schedules, which the engine runs. No array: one layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Piece(NamedTuple):
    """The forward or backward of one micro-batch on one chunk (virtual stage) of a stage."""

    backward: bool
    micro_batch: int
    chunk: int


class Run(NamedTuple):
    """Seconds since the step's begin: when a piece could start to receive, computed, and was sent."""

    piece: Piece
    receive: float
    start: float
    end: float
    sent: float


@dataclass(frozen=True)
class Costs:
    """Seconds of a piece on one stage.

    ``forward`` and ``backward`` keep the device busy, with tensor-parallel messages. ``message``: to another
    stage. The device waits ``before_forward`` and ``before_backward`` a piece and ``after_backward`` it for
    messages of its data-parallel ranks, but not while it waits for another stage anyway.
    """

    forward: float
    backward: float
    message: float
    before_forward: float
    before_backward: float
    after_backward: float


def order(stage: int, stages: int, chunks: int, micro_batches: int) -> list[Piece]:
    """What a stage computes, in order."""
    if chunks == 1:
        pieces, warm_up = [(k, 0) for k in range(micro_batches)], stages - stage - 1
    else:
        pieces = [
            (k, chunk)
            for first in range(0, micro_batches, stages)
            for chunk in range(chunks)
            for k in range(first, min(first + stages, micro_batches))
        ]
        warm_up = 2 * (stages - stage - 1) + (chunks - 1) * stages
    warm_up = min(warm_up, len(pieces))
    forwards = [Piece(False, k, chunk) for k, chunk in pieces]
    backwards = [Piece(True, k, chunks - 1 - chunk) for k, chunk in pieces]
    found = forwards[:warm_up]
    for forward, backward in zip(forwards[warm_up:], backwards, strict=False):
        found += [forward, backward]
    return found + backwards[len(pieces) - warm_up :]


def sender(piece: Piece, stage: int, stages: int, chunks: int) -> tuple[int, Piece] | None:
    """The stage and piece whose result a piece waits for; None if that is not on another stage."""
    step = 1 if piece.backward else -1
    other, chunk = stage + step, piece.chunk
    if not 0 <= other < stages:
        other, chunk = other % stages, chunk + step
    if not 0 <= chunk < chunks or stages == 1:
        return None
    return other, piece._replace(chunk=chunk)


def run(costs: list[Costs], chunks: int, micro_batches: int) -> list[list[Run]]:
    """The pieces of each stage, as early as order and messages allow.

    Each piece costs its stage one message, as the planner counts: a received one, or for the pieces at the
    two ends of the pipeline, which receive nothing, a sent one.
    """
    stages = len(costs)
    orders = [order(stage, stages, chunks, micro_batches) for stage in range(stages)]
    done: list[list[Run]] = [[] for _ in costs]
    ready: dict[tuple[int, Piece], float] = {}
    left = stages * len(orders[0])
    while left:
        before = left
        for stage in range(stages):
            while len(done[stage]) < len(orders[stage]):
                piece = orders[stage][len(done[stage])]
                source = sender(piece, stage, stages, chunks)
                if source is not None and source not in ready:
                    break
                begun = _begin(piece, costs[stage], done[stage], ready[source] if source else None, stages)
                done[stage].append(begun)
                ready[stage, piece] = begun.sent
                left -= 1
        assert left < before, "the order of pieces has a cycle"
    return done


def _begin(piece: Piece, costs: Costs, done: list[Run], ready: float | None, stages: int) -> Run:
    free = done[-1].sent if done else 0.0
    waited = free + (costs.after_backward if done and done[-1].piece.backward else 0.0)
    waited += costs.before_backward if piece.backward else costs.before_forward
    body = costs.backward if piece.backward else costs.forward
    if ready is None:
        message = costs.message if stages > 1 else 0.0
        return Run(piece, waited, waited, waited + body, waited + body + message)
    start = max(waited, ready) + costs.message
    return Run(piece, max(free, ready), start, start + body, start + body)
