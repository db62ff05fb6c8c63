"""Seconds of a training step, by part.

A micro-batch on a stage is computing plus messages that are not hidden: tensor-parallel ones, and tokens on
their way to experts. Gathers of weights
and reductions of gradients overlap it if the engine supports that. The pipeline follows Narayanan et al. 2021
(arXiv 2104.04473, section 2.2): m micro-batches on the slowest stage, plus one pass through the others, which
v virtual stages divide by v. Data-parallel messages that the last backward cannot hide follow, then the
optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from frontrunner.configs.software import SoftwareSpec
from frontrunner.parallelism.planner import compute, expert_hops, expert_stages
from frontrunner.parallelism.planner.candidates import (
    NOTHING_SHARED,
    Array,
    Candidates,
    Mask,
    Shared,
    Workload,
    constant,
)
from frontrunner.parallelism.planner.collectives import Fabric
from frontrunner.parallelism.planner.memory import stage_parameters
from frontrunner.parallelism.planner.parameters import sparse_before
from frontrunner.parallelism.planner.sharding_messages import Cut, sharding


def nothing() -> Array:
    """Of models without experts: 0 for any number of layouts."""
    return np.zeros(1)


@dataclass(frozen=True)
class StepTime:
    """Seconds [n] by part; their sum is the step time."""

    compute: Array
    """Forward and backward of the slowest stage, without recomputation."""
    recompute: Array
    tensor: Array
    """Tensor-parallel messages."""
    dispatch: Array
    """Tokens on their way to experts and back."""
    pipeline: Array
    """Messages between stages."""
    bubble: Array
    """Waiting for the pipeline to fill and drain."""
    weights: Array
    """Gathers of weights that computing does not hide."""
    gradients: Array
    """Reductions of gradients that computing does not hide."""
    update: Array
    """Distributing updated weights to all ranks, if nothing hides it."""
    optimizer: Array
    stragglers: Array
    """Waiting for the slowest device."""

    @cached_property
    def total(self) -> Array:
        names = [found.name for found in fields(self) if found.name != "dispatch"]
        first, *others = (getattr(self, name) for name in names)
        parts: Array = sum(others, first)
        return parts + self.dispatch if self.dispatch.any() else parts


@dataclass(frozen=True)
class MicroBatch:
    """Seconds [n] of one micro-batch on one stage."""

    forward: Array
    backward: Array
    recompute: Array
    tensor_forward: Array
    tensor_backward: Array
    dispatch_forward: Array = field(default_factory=nothing)
    dispatch_backward: Array = field(default_factory=nothing)

    @property
    def total(self) -> Array:
        found = self.forward + self.backward + self.recompute + self.tensor_forward + self.tensor_backward
        return found + self.dispatch_forward + self.dispatch_backward


@dataclass(frozen=True)
class _Shape:
    """Seconds [n] that do not depend on how states are cut: the slowest stage, and the pipeline.

    ``forward`` and ``backward`` are one micro-batch's on the slowest stage, with tensor-parallel messages and
    those of tokens to experts.
    """

    compute: Array
    recompute: Array
    tensor: Array
    dispatch: Array
    pipeline: Array
    bubble: Array
    stragglers: Array
    forward: Array
    backward: Array


@dataclass(frozen=True)
class _Messages:
    """Seconds [n] of data-parallel messages, and of the optimizer.

    ``gather`` and ``behind`` travel in each forward and backward, ``reduction`` and ``update`` once a step.
    ``units`` is the number of shard units, ``gathers`` that of messages that gather their weights.
    """

    gather: Array
    behind: Array
    reduction: Array
    update: Array
    optimizer: Array
    units: Array
    gathers: Array


def step_time(
    workload: Workload,
    c: Candidates,
    computing: MicroBatch | None = None,
    optimizer_s: float | None = None,
    shared: Shared = NOTHING_SHARED,
) -> StepTime:
    """The step time of each candidate. If ``computing`` (of one micro-batch) and ``optimizer_s`` were
    measured on a machine, they replace the values from its software's rates."""
    fabric = Fabric(workload.machine, workload.software)
    shape = shared.shapes.once(lambda c: _shape(workload, c, computing, fabric), c)
    messages = shared.cuts.once(lambda c: _messages(workload, c, optimizer_s, fabric), c)
    weights, gradients, update = _waiting(workload, c.grad_accum_steps, shape, messages)
    return StepTime(
        compute=shape.compute,
        recompute=shape.recompute,
        tensor=shape.tensor,
        dispatch=shape.dispatch,
        pipeline=shape.pipeline,
        bubble=shape.bubble,
        weights=weights,
        gradients=gradients,
        update=update,
        optimizer=messages.optimizer,
        stragglers=shape.stragglers,
    )


def _shape(workload: Workload, c: Candidates, computing: MicroBatch | None, fabric: Fabric) -> _Shape:
    # The stage with the most work: one with the most layers, or the last, which has the output layer.
    middle = computing or micro_batch(workload, c, np.zeros(len(c)), fabric)
    last = computing or micro_batch(workload, c, c.pipeline - 1, fabric)
    slowest = _choose(middle, last)
    stages = middle.total * (c.pipeline - 1) + last.total
    if not computing and expert_stages.uneven(workload.model):
        fullest = expert_stages.fullest(workload.model, c)
        slowest = _choose(slowest, micro_batch(workload, c, fullest, fabric))
        stages = _all_stages(workload, c, fabric).total
    m = c.grad_accum_steps
    sent = fabric.message(workload.tokens(c) * workload.model.hidden_size * workload.compute_bytes / c.tensor)
    sent = np.where(c.pipeline > 1, 2 * c.virtual_stages * sent, 0.0)
    work = m * (slowest.forward + slowest.backward + slowest.recompute)
    return _Shape(
        compute=m * (slowest.forward + slowest.backward),
        recompute=m * slowest.recompute,
        tensor=m * (slowest.tensor_forward + slowest.tensor_backward),
        dispatch=m * (slowest.dispatch_forward + slowest.dispatch_backward)
        if workload.model.experts
        else constant(0.0, len(c)),
        pipeline=m * sent,
        # Virtual stages shorten the waiting, but not the messages in between.
        bubble=(stages - slowest.total + (c.pipeline - 1) * sent) / c.virtual_stages,
        stragglers=work * slowest_of(c.data * c.tensor * c.pipeline, workload.software),
        forward=slowest.forward + slowest.tensor_forward + slowest.dispatch_forward,
        backward=slowest.backward + slowest.recompute + slowest.tensor_backward + slowest.dispatch_backward,
    )


def slowest_of(devices: Array, software: SoftwareSpec | None) -> Array:
    """By which share the slowest of ``devices`` is slower than the mean: the expected largest of n normal
    values, about sqrt(2 ln n) standard deviations."""
    spread = software.device_spread if software else 0.0
    share: Array = spread * np.sqrt(2 * np.log(devices))
    return share


def micro_batch(workload: Workload, c: Candidates, index: Array, fabric: Fabric) -> MicroBatch:
    """One micro-batch on stage ``index``, by the rates of the machine's software."""
    stage = stage_parameters(workload, c, index)
    return _of_layers(workload, c, fabric, stage.layer_count, stage.sparse_count, stage.last)


def _all_stages(workload: Workload, c: Candidates, fabric: Fabric) -> MicroBatch:
    """One micro-batch on all stages together."""
    model, one = workload.model, np.ones(len(c))
    sparse = one * sparse_before(model, model.num_layers)
    return _of_layers(workload, c, fabric, one * model.num_layers, sparse, one > 0)


def _of_layers(
    workload: Workload, c: Candidates, fabric: Fabric, layers: Array, sparse: Array, output: Mask
) -> MicroBatch:
    """One micro-batch on ``layers`` layers, of which ``sparse`` have experts, and the output layer."""
    assert workload.software, "computing time is known only for machines with measured software"
    layer = compute.layer(workload, c, workload.software)
    again = _repeated(workload, c, layer)
    dense = layers - sparse
    forward, backward, recompute = dense * layer.forward, dense * layer.backward, dense * again
    dispatch_forward = dispatch_backward = nothing()
    repeated = np.where(c.recompute == 2, 2.0, 1.0)
    if workload.model.experts:
        layer = compute.layer(workload, c, workload.software, sparse=True)
        forward, backward = forward + sparse * layer.forward, backward + sparse * layer.backward
        recompute = recompute + sparse * _repeated(workload, c, layer)
        sent = expert_hops.seconds(workload, c, fabric)
        dispatch_forward = sparse * sent.forward
        dispatch_backward = sparse * (sent.backward + (repeated - 1) * sent.forward)
    head = np.where(output, compute.head(workload, c, workload.software), 0.0)
    tensor = _tensor_messages(workload, c, fabric)
    return MicroBatch(
        forward=forward + head / 3,
        backward=backward + head * 2 / 3,
        recompute=recompute,
        tensor_forward=layers * tensor,
        tensor_backward=layers * tensor * repeated,
        dispatch_forward=dispatch_forward,
        dispatch_backward=dispatch_backward,
    )


def _repeated(workload: Workload, c: Candidates, layer: compute.Layer) -> Array:
    """Seconds of what the backward of one layer recomputes."""
    share = workload.profile.recomputed_share
    selective = share * (layer.forward - layer.attention_forward) if share else layer.attention_forward
    again: Array = np.choose(c.recompute.astype(int), [0.0 * layer.forward, selective, layer.forward])
    return again


def _tensor_messages(workload: Workload, c: Candidates, fabric: Fabric) -> Array:
    """Seconds of the messages of tensor ranks in the forward of one layer."""
    # Two all-reduces per layer each way (Shoeybi et al. 2019, arXiv 1909.08053), or their two halves.
    all_reduce = (
        2
        * fabric.ring(
            c.tensor,
            np.ones(len(c)),
            workload.tokens(c) * workload.model.hidden_size * workload.compute_bytes,
        ).longest
    )
    if workload.model.qk_norm == "full":  # and the sums of squares of queries and keys, in float32
        ones = np.ones(len(c))
        all_reduce = all_reduce + 2 * fabric.ring(c.tensor, ones, workload.tokens(c) * 4).longest
    # Ranks that share a key and value head gather their queries, key and value; backwards the sums go out.
    model, sharing = workload.model, np.maximum(c.tensor / workload.model.num_kv_heads, 1)
    group = (model.num_heads / model.num_kv_heads + 2) * model.head_dim
    gathered = workload.tokens(c) * group * workload.compute_bytes
    shared = fabric.ring(sharing, np.ones(len(c)), gathered).longest
    return 2 * all_reduce + shared


def _messages(workload: Workload, c: Candidates, optimizer_s: float | None, fabric: Fabric) -> _Messages:
    """The messages of the first stage, which has the most parameters, or of the one with the most experts."""
    profile, model = workload.profile, workload.model
    stage = stage_parameters(workload, c, expert_stages.fullest(model, c))
    numel, width = stage.numel, float(workload.compute_bytes)
    own = c.of_experts() if model.experts else c
    units = stage.layer_count + (stage.embedding > 0)
    if optimizer_s is None:
        assert workload.software, "the optimizer's time is known only for machines with measured software"
        held = numel / c.optimizer
        held = held + stage.experts / own.optimizer if model.experts else held
        steps = compute.optimizer(workload, held, workload.software)
    else:
        steps = np.full(len(c), optimizer_s)
    if profile.all_reduces:
        bytes_all, nothing = numel * width, np.zeros(len(c))
        ring = fabric.ring(c.data, c.tensor, bytes_all).longest
        reduced = fabric.all_reduce(c.data, c.tensor, bytes_all)
        return _Messages(nothing, nothing, reduced, np.where(c.optimizer > 1, ring, 0.0), steps, units, units)
    gathers = profile.gathers_per_layer * stage.layer_count + (stage.embedding > 0)
    sent = sharding(workload, c, fabric, c.tensor, Cut(numel, stage.layers, units, gathers))
    if model.experts:
        sparse = np.maximum(stage.sparse_count, 1)
        experts = Cut(stage.experts, stage.experts, sparse, profile.gathers_per_layer * sparse)
        more = sharding(workload, own, fabric, c.tensor * c.expert, experts)
        sent = sent.joined(more)
        units, gathers = units + stage.sparse_count, gathers + stage.sparse_count
    overlaps = profile.overlaps_weights
    return _Messages(
        gather=sent.gather.longest if overlaps else (sent.gather + sent.second).longest,
        behind=(sent.second + sent.block).longest if overlaps else sent.block.longest,
        reduction=sent.reduction.longest + sent.reduced,
        update=sent.update.longest,
        optimizer=steps,
        units=units,
        gathers=gathers,
    )


def _waiting(workload: Workload, m: Array, shape: _Shape, messages: _Messages) -> tuple[Array, Array, Array]:
    """Seconds of waiting for weights, gradients and the update."""
    profile, units = workload.profile, messages.units
    lost = workload.software.contention if workload.software else 0.0
    if profile.overlaps_weights and not profile.all_reduces:
        weights = m * _beside(shape.forward, messages.gather, messages.gathers, lost)
        gradients = m * _beside(shape.backward, messages.behind, units, lost)
    else:
        weights, gradients = m * messages.gather, m * messages.behind
    if profile.overlaps_gradients and not profile.all_reduces:
        return (
            weights,
            gradients + _behind(shape.backward, messages.reduction, units, lost),
            # The next forward, which hides it, takes as long as the gathers that it waits for.
            _behind(np.maximum(shape.forward, messages.gather), messages.update, units, lost),
        )
    return weights, gradients + messages.reduction, messages.update


def _beside(computing: Array, sending: Array, units: Array, lost: float) -> Array:
    """Seconds that messages of ``units`` units add to the computing that they overlap: the excess of the
    longer, plus one unit of the shorter, since the unit at the end overlaps nothing. While messages run, a
    share of ``lost`` of the computing is lost."""
    slower = computing + lost * np.minimum(computing, sending)
    return np.maximum(slower, sending) + np.minimum(slower, sending) / units - computing


def _behind(computing: Array, sending: Array, units: Array, lost: float) -> Array:
    """Seconds by which messages outlast the computing that they follow unit by unit, and by which they slow
    it down."""
    hidden = computing * (1 - 1 / units)
    slower = lost * np.minimum(hidden, sending)
    return np.maximum(sending / units + slower, sending - hidden)


def _choose(one: MicroBatch, other: MicroBatch) -> MicroBatch:
    larger = one.total >= other.total
    return MicroBatch(
        **{f.name: np.where(larger, getattr(one, f.name), getattr(other, f.name)) for f in fields(MicroBatch)}
    )
