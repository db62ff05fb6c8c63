"""Bytes that a device needs, by part and pipeline stage.

Sharded states follow the lattice of sharding degrees (design: b_w psi/w + b_g psi/g + b_o psi/o; Rajbhandari
et al. 2020, arXiv 1910.02054, for the b's). Activations come from :mod:`activations`. Micro-batches in flight
follow the 1F1B and interleaved schedules of Narayanan et al. 2021 (arXiv 2104.04473).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, partial

import numpy as np

from frontrunner.configs.schema import ModelSpec
from frontrunner.parallelism.planner import activations, expert_hops, expert_stages
from frontrunner.parallelism.planner.candidates import (
    NOTHING_SHARED,
    Array,
    Candidates,
    Mask,
    Shared,
    Workload,
    constant,
)
from frontrunner.parallelism.planner.communicator_count import communicators
from frontrunner.parallelism.planner.parameters import expert_parameters, layer_parameters, norm_parameters


@dataclass(frozen=True)
class Memory:
    """Bytes [n] of one device, by part.

    ``buffers`` are gathered shard units, gradients in transit and quantised messages; ``residual`` is what
    the allocator and the framework add.
    """

    weights: Array
    gradients: Array
    optimizer: Array
    activations: Array
    buffers: Array
    residual: Array

    @cached_property
    def at_rest(self) -> Array:
        """The bytes held between two steps."""
        return self.weights + self.gradients + self.optimizer + self.residual

    @cached_property
    def peak(self) -> Array:
        return self.at_rest + self.activations + self.buffers

    @classmethod
    def larger(cls, one: Memory, other: Memory) -> Memory:
        """For each candidate, the memory with the larger peak."""
        first = one.peak >= other.peak
        return cls(
            **{f.name: np.where(first, getattr(one, f.name), getattr(other, f.name)) for f in fields(cls)}
        )


@dataclass(frozen=True)
class Stage:
    """Parameters [n] on one device of a pipeline stage.

    ``sparse_count`` of its layers have experts. ``sparse_layer`` are the other parameters of such a layer,
    and ``experts`` those of the experts of all of them.
    """

    layers: Array
    layer_count: Array
    sparse_count: Array
    sparse_layer: Array
    experts: Array
    embedding: Array
    output: Array
    first: Mask
    last: Mask

    @property
    def numel(self) -> Array:
        """All but ``experts``, which have degrees of their own."""
        return self.layers + self.embedding + self.output


@dataclass(frozen=True)
class _Held:
    """Bytes [n] on one stage that depend on the cut alone; ``residual`` without the allocator's share."""

    weights: Array
    gradients: Array
    optimizer: Array
    states: Array
    buffers: Array
    residual: Array


@dataclass(frozen=True)
class _Kept:
    """Bytes [n] on one stage that depend on the shape alone."""

    activations: Array


def memory(workload: Workload, c: Candidates, shared: Shared = NOTHING_SHARED) -> Memory:
    """Memory of the fullest device: the first stage has the most in flight, the last has the logits. Where
    some layers have experts, another may have the most of these."""
    found = Memory.larger(
        _stage_memory(workload, c, lambda c: np.zeros(len(c)), shared),
        _stage_memory(workload, c, lambda c: c.pipeline - 1, shared),
    )
    for index in expert_stages.between(workload.model, c):
        stage = partial(_stage_at, index)
        found = Memory.larger(found, _stage_memory(workload, c, stage, shared))
    return found


def _stage_at(index: int, c: Candidates) -> Array:
    """That stage, or the last one [n]."""
    return np.minimum(float(index), c.pipeline - 1)


def stage_memory(workload: Workload, c: Candidates, index: Array) -> Memory:
    """Memory of a device of stage ``index`` [n]."""
    return _stage_memory(workload, c, lambda c: index, NOTHING_SHARED)


def _stage_memory(
    workload: Workload, c: Candidates, stage: Callable[[Candidates], Array], shared: Shared
) -> Memory:
    """Memory of a device of the stage whose index a function gives."""
    held = shared.cuts.once(lambda c: _held(workload, c, stage(c)), c)
    kept = shared.shapes.once(lambda c: _Kept(_activations(workload, c, stage(c))), c)
    tensors = held.states + kept.activations + held.buffers
    return Memory(
        weights=held.weights,
        gradients=held.gradients,
        optimizer=held.optimizer,
        activations=kept.activations,
        buffers=held.buffers,
        residual=held.residual + workload.profile.allocator_share * tensors,
    )


def _held(workload: Workload, c: Candidates, index: Array) -> _Held:
    stage = stage_parameters(workload, c, index)
    weights, gradients, optimizer = _states(workload, c, stage.numel)
    if workload.model.experts:
        own = _states(workload, c.of_experts(), stage.experts)
        weights, gradients, optimizer = weights + own[0], gradients + own[1], optimizer + own[2]
    return _Held(
        weights,
        gradients,
        optimizer,
        weights + gradients + optimizer,
        _buffers(workload, c, stage),
        _residual(workload, c, stage),
    )


def _activations(workload: Workload, c: Candidates, index: Array) -> Array:
    stage = stage_parameters(workload, c, index)
    micro_batches = in_flight(c, index)
    dense = stage.layer_count - stage.sparse_count
    kept = micro_batches * dense / c.virtual_stages * activations.kept_per_layer(workload, c)
    # If interleaved, up to two rounds of micro-batches are in the first piece of the first stage.
    begun = np.minimum(np.where(c.virtual_stages > 1, 2 * c.pipeline - 1, c.pipeline), c.grad_accum_steps)
    kept = kept + np.where(stage.first, begun * activations.embedding(workload, c), 0.0)
    inside = activations.recomputed_layer(workload, c)
    if workload.model.experts:
        pieces = micro_batches * stage.sparse_count / c.virtual_stages
        kept = kept + pieces * activations.kept_per_layer(workload, c, sparse=True)
        again = activations.recomputed_layer(workload, c, sparse=True) + expert_hops.buffers(workload, c)
        inside = np.maximum(np.where(dense > 0, inside, 0.0), np.where(stage.sparse_count > 0, again, 0.0))
    head = np.where(stage.last, activations.logits(workload, c), 0.0)
    found: Array = kept + np.maximum(inside, head)
    return found


def stage_parameters(workload: Workload, c: Candidates, index: Array) -> Stage:
    """Layers per stage: equal, except that the last stage takes the remainder."""
    model = workload.model
    first, last = index == 0, index == c.pipeline - 1
    even = np.ceil(model.num_layers / c.pipeline)
    count = np.where(last, model.num_layers - even * (c.pipeline - 1), even)
    layer = _layer(model, c, sparse=False)
    layers = count * layer
    sparse = sparse_layer = experts = constant(0.0, len(c))
    if model.experts:
        sparse_layer = _layer(model, c, sparse=True)
        sparse = expert_stages.sparse_layers(model, c, index)
        layers = (count - sparse) * layer + sparse * sparse_layer
        experts = sparse * expert_parameters(model) * model.experts.num_experts / c.tensor / c.expert
    words = model.padded_vocab_size * model.hidden_size / c.tensor
    learned = model.position_embedding == "learned"
    positions = model.max_position_embeddings * model.hidden_size if learned else 0
    shared = model.tie_embeddings & (c.pipeline == 1)
    return Stage(
        layers=layers + np.where(last, norm_parameters(model), 0.0) + np.where(first, positions, 0.0),
        layer_count=count,
        sparse_count=sparse,
        sparse_layer=sparse_layer,
        experts=experts,
        embedding=np.where(first, words, 0.0),
        output=np.where(last & ~shared, words + (positions if workload.profile.ties_positions else 0), 0.0),
        first=first,
        last=last,
    )


def _layer(model: ModelSpec, c: Candidates, sparse: bool) -> Array:
    """Parameters of a layer on one device, without experts."""
    # Exact for integer divisors: layer_parameters is linear in 1 / tensor except for what ranks repeat.
    whole, halved = layer_parameters(model, 1, sparse), layer_parameters(model, 2, sparse)
    repeated = 2 * halved - whole
    return repeated + (whole - repeated) / c.tensor


def in_flight(c: Candidates, index: Array) -> Array:
    """Micro-batches whose activations a stage holds at once, counted in pieces of one virtual stage."""
    plain = np.minimum(c.pipeline - index, c.grad_accum_steps)
    pieces = (c.virtual_stages - 1) * c.pipeline + 2 * (c.pipeline - index - 1) + 1
    interleaved = np.minimum(pieces, c.virtual_stages * c.grad_accum_steps)
    return np.where(c.virtual_stages > 1, interleaved, plain)


def _states(workload: Workload, c: Candidates, numel: Array) -> tuple[Array, Array, Array]:
    """Bytes of weights, gradients and optimizer at rest, of ``numel`` parameters."""
    if workload.profile.kept:
        weights, gradients, optimizer = workload.profile.kept
        return weights * numel / c.weights, gradients * numel / c.gradients, optimizer * numel / c.optimizer
    full_precision = workload.compute_bytes == 4
    # Weights that are cut are kept in the wire format.
    kept = numel * workload.weight_bytes(c) / c.weights
    kept = kept + np.where(c.secondary < c.weights, numel / c.secondary * c.weight_wire, 0.0)
    lost = np.where(c.error_feedback > 0, numel * workload.compute_bytes, 0.0)
    # Float32 weights are their own master copy.
    return (
        kept,
        numel * workload.gradient_bytes / c.gradients + lost,
        numel * (8 if full_precision else 12) / c.optimizer,
    )


def _residual(workload: Workload, c: Candidates, stage: Stage) -> Array:
    """What the engine keeps in addition to the states, and the buffers of its groups of ranks."""
    profile = workload.profile
    # Other engines' are in what was measured of them.
    groups = communicators(workload, c) if profile.communicator_bytes else 0.0
    return (
        profile.residual_bytes
        + profile.communicator_bytes * groups
        + np.where(stage.first & ~stage.last, profile.tied[0] * stage.embedding, 0.0)
        + np.where(stage.last & ~stage.first, profile.tied[1] * stage.output, 0.0)
    )


def _buffers(workload: Workload, c: Candidates, stage: Stage) -> Array:
    """Two gathered shard units with their messages, and the gradients of two units in transit.

    A layer with experts is gathered and reduced together with them.
    """
    profile = workload.profile
    if profile.kept and not profile.overlaps_weights:
        largest = 2 * workload.model.hidden_size * workload.model.ffn_hidden_size / c.tensor
        whole = profile.whole_gradients * stage.numel * (1 - 1 / c.gradients)
        return whole + largest  # the largest weight's gradient before it is added
    words = np.maximum(stage.embedding, stage.output)
    if workload.model.experts is None:
        unit = np.maximum(stage.layers / np.maximum(stage.layer_count, 1), words)
        return _gathered(workload, c, unit) + _in_transit(workload, c, unit)
    own, dense = c.of_experts(), stage.layer_count - stage.sparse_count
    layer = (stage.layers - stage.sparse_count * stage.sparse_layer) / np.maximum(dense, 1)
    unit = np.maximum(np.where(dense > 0, layer, 0.0), words)
    sparse = np.where(stage.sparse_count > 0, stage.sparse_layer, 0.0)
    experts = stage.experts / np.maximum(stage.sparse_count, 1)
    found = np.zeros(len(c))
    for held in (_gathered, _in_transit):
        found += np.maximum(held(workload, c, unit), held(workload, c, sparse) + held(workload, own, experts))
    return found


def _gathered(workload: Workload, c: Candidates, unit: Array) -> Array:
    """Two gathered units of ``unit`` parameters with their messages."""
    width = workload.compute_bytes
    coded = c.weight_wire != width
    return np.where(c.weights > 1, unit * (2 * width + coded * c.weight_wire), 0.0)


def _in_transit(workload: Workload, c: Candidates, unit: Array) -> Array:
    """The gradients of two units of ``unit`` parameters."""
    width = workload.compute_bytes
    # For two units: the gradient, its messages to and from the block, and the float32 sums of its shard.
    reduced = unit * (2 * width + 2 * c.gradient_wire + 2 * 4 / c.gradients)
    # Whole gradients are added as they come. For two units: messages to and from the other ranks.
    whole = unit * (width + np.where(c.data > 1, 2 * 2 * c.network_wire, 0.0))
    return np.where(c.gradients > 1, reduced, whole)
