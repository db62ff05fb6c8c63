"""Which layers of a pipeline stage have experts, for many layouts at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner.candidates import Array, Candidates, constant
from frontrunner.parallelism.planner.parameters import sparse_before


def sparse_layers(model: ModelSpec, c: Candidates, index: Array) -> Array:
    """Layers with experts of stage ``index`` [n]; the last stage has fewer layers if they do not divide."""
    if model.experts is None:
        return np.zeros(len(c))
    length = _chunk(model, c)
    found = np.zeros(len(c))
    for chunk in range(int(c.virtual_stages.max(initial=1))):
        begin = (chunk * c.pipeline + index) * length
        end = np.minimum(begin + length, model.num_layers)
        own = sparse_before(model, end) - sparse_before(model, np.minimum(begin, end))
        found += np.where(chunk < c.virtual_stages, own, 0)
    return found


def _chunk(model: ModelSpec, c: Candidates) -> Array:
    """Layers of a virtual stage."""
    length: Array = np.ceil(model.num_layers / c.pipeline) / c.virtual_stages
    return length


def uneven(model: ModelSpec) -> bool:
    """Whether stages may have different numbers of layers with experts."""
    return model.experts is not None and (model.experts.first_dense_layers > 0 or model.experts.every > 1)


def fullest(model: ModelSpec, c: Candidates) -> Array:
    """The first stage [n] of those with the most layers with experts."""
    if model.experts is None or not uneven(model):
        return constant(0.0, len(c))
    best = np.zeros(len(c))
    if model.experts.every == 1:
        length = _chunk(model, c)
        # Rounds of chunks that are all dense are equal on all stages.
        found: Array = np.ceil(model.experts.first_dense_layers % (c.pipeline * length) / length)
        return np.minimum(found, c.pipeline - 1)
    most = sparse_layers(model, c, best)
    for index in range(1, int(c.pipeline.max(initial=1))):
        here = np.full(len(c), float(index))
        count = np.where(here < c.pipeline, sparse_layers(model, c, here), -1)
        best = np.where(count > most, here, best)
        most = np.maximum(count, most)
    return best


def between(model: ModelSpec, c: Candidates) -> Iterator[int]:
    """Stages besides the first and the last that may need the most memory.

    If only the first layers are dense, all stages after the fullest one are like it, with less in flight.
    """
    if uneven(model):
        assert model.experts
        last = c.pipeline - 2
        if model.experts.every == 1:
            last = np.minimum(last, np.ceil(model.experts.first_dense_layers / _chunk(model, c)))
        yield from range(1, int(last.max(initial=0)) + 1)
