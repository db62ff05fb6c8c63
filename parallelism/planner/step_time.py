"""Seconds of a training step, by part.

A stage's micro-batch is computing and tensor-parallel messages (not hidden), beside which weights are
gathered and gradients reduced where the engine hides them. The pipeline follows Narayanan et al. 2021 (arXiv
2104.04473, section 2.2): m micro-batches of the slowest stage, and once through the others, which v virtual
stages divide by v. What data-parallel messages the last backward cannot hide follow, then the optimizer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from frontrunner.parallelism.planner import compute
from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload
from frontrunner.parallelism.planner.collectives import Fabric
from frontrunner.parallelism.planner.memory import Stage, stage_parameters


@dataclass(frozen=True)
class StepTime:
    """Seconds [n]; the sum of the parts is the step."""

    compute: Array
    """Forward and backward of the slowest stage, recomputation left out."""
    recompute: Array
    tensor: Array
    """Tensor-parallel messages."""
    pipeline: Array
    """Messages between stages."""
    bubble: Array
    """Waiting for the pipeline to fill and to drain."""
    weights: Array
    """Gathers of weights that computing does not hide."""
    gradients: Array
    """Reductions of gradients that computing does not hide."""
    update: Array
    """Bringing updated weights to all ranks, where nothing hides it."""
    optimizer: Array

    @property
    def total(self) -> Array:
        parts: Array = np.sum([getattr(self, field.name) for field in fields(self)], axis=0)
        return parts


@dataclass(frozen=True)
class MicroBatch:
    """Seconds [n] of one micro-batch on one stage."""

    forward: Array
    backward: Array
    recompute: Array
    tensor_forward: Array
    tensor_backward: Array

    @property
    def total(self) -> Array:
        return self.forward + self.backward + self.recompute + self.tensor_forward + self.tensor_backward


def step_time(
    workload: Workload, c: Candidates, computing: MicroBatch | None = None, optimizer_s: float | None = None
) -> StepTime:
    """Of each candidate. ``computing`` and ``optimizer_s`` replace what the machine's software says of one
    micro-batch and of the optimizer, for a machine where they were measured."""
    fabric = Fabric(workload.machine, workload.software)
    # The stage with most to do: one with the most layers, or the last, with the output layer.
    middle = computing or micro_batch(workload, c, np.zeros(len(c)), fabric)
    last = computing or micro_batch(workload, c, c.pipeline - 1, fabric)
    slowest = _choose(middle, last)
    stages = middle.total * (c.pipeline - 1) + last.total
    m = c.grad_accum_steps
    sent = fabric.message(workload.tokens(c) * workload.model.hidden_size * workload.compute_bytes / c.tensor)
    sent = np.where(c.pipeline > 1, 2 * c.virtual_stages * sent, 0.0)
    # Virtual stages shorten what the others wait for, but not the messages in between.
    bubble = (stages - slowest.total + (c.pipeline - 1) * sent) / c.virtual_stages
    stage = stage_parameters(workload, c, np.zeros(len(c)))
    weights, gradients, update = data_parallel(workload, c, stage, slowest, fabric)
    if optimizer_s is None:
        assert workload.software, "the optimizer's time is known of machines with measured software only"
        steps = compute.optimizer(workload, stage.numel / c.optimizer, workload.software)
    else:
        steps = np.full(len(c), optimizer_s)
    return StepTime(
        compute=m * (slowest.forward + slowest.backward),
        recompute=m * slowest.recompute,
        tensor=m * (slowest.tensor_forward + slowest.tensor_backward),
        pipeline=m * sent,
        bubble=bubble,
        weights=weights,
        gradients=gradients,
        update=update,
        optimizer=steps,
    )


def micro_batch(workload: Workload, c: Candidates, index: Array, fabric: Fabric) -> MicroBatch:
    """One micro-batch on stage ``index`` by the rates of the machine's software."""
    assert workload.software, "computing is known of machines with measured software only"
    layer = compute.layer(workload, c, workload.software)
    stage = stage_parameters(workload, c, index)
    head = np.where(stage.last, compute.head(workload, c, workload.software), 0.0)
    share = workload.profile.recomputed_share
    selective = share * (layer.forward - layer.attention_forward) if share else layer.attention_forward
    again = np.choose(c.recompute.astype(int), [0.0 * layer.forward, selective, layer.forward])
    # Two all-reduces a layer each way (Shoeybi et al. 2019, arXiv 1909.08053), or their two halves.
    all_reduce = (
        2
        * fabric.ring(
            c.tensor,
            np.ones(len(c)),
            workload.tokens(c) * workload.model.hidden_size * workload.compute_bytes,
        ).longest
    )
    repeated = np.where(c.recompute == 2, 2.0, 1.0)
    return MicroBatch(
        forward=stage.layer_count * layer.forward + head / 3,
        backward=stage.layer_count * layer.backward + head * 2 / 3,
        recompute=stage.layer_count * again,
        tensor_forward=stage.layer_count * 2 * all_reduce,
        tensor_backward=stage.layer_count * 2 * all_reduce * repeated,
    )


def data_parallel(
    workload: Workload, c: Candidates, stage: Stage, computing: MicroBatch, fabric: Fabric
) -> tuple[Array, Array, Array]:
    """Seconds in which weights, gradients and the update are waited for."""
    profile, m = workload.profile, c.grad_accum_steps
    numel, width = stage.numel, float(workload.compute_bytes)
    if profile.all_reduces:
        bytes_all = numel * width
        ring = fabric.ring(c.data, c.tensor, bytes_all).longest
        reduced = fabric.all_reduce(c.data, c.tensor, bytes_all)
        return 0.0 * m, reduced, np.where(c.optimizer > 1, ring, 0.0)
    units = stage.layer_count + (stage.embedding > 0)
    gather = fabric.ring(c.weights, c.tensor, numel * c.weight_wire, units)
    second = fabric.ring(c.secondary, c.tensor, stage.layers * c.weight_wire, units)
    block = fabric.exchange(c.gradients, c.tensor, numel * c.gradient_wire, units)
    forward = computing.forward + computing.tensor_forward
    backward = computing.backward + computing.recompute + computing.tensor_backward
    behind = second + block
    if profile.overlaps_weights:
        weights = m * _beside(forward, gather.longest, units)
        gradients = m * _beside(backward, behind.longest, units)
    else:
        weights, gradients = m * (gather + second).longest, m * block.longest
    stride, beyond = c.tensor * c.gradients, c.tensor * c.optimizer
    hop = fabric.exchange(c.optimizer / c.gradients, stride, numel / c.gradients * c.network_wire, units)
    copies = fabric.exchange(c.data / c.optimizer, beyond, numel / c.optimizer * c.network_wire, units)
    copies = copies + fabric.ring(c.data / c.optimizer, beyond, numel / c.optimizer * width, units)
    reduction = (hop + copies).longest
    update = fabric.ring(c.optimizer / c.gradients, stride, numel / c.gradients * c.weight_wire, units)
    in_block = numel / c.weights * c.weight_wire
    update = update + fabric.ring(c.gradients / c.weights, c.tensor * c.weights, in_block, units)
    if profile.overlaps_gradients:
        return (
            weights,
            gradients + _behind(backward, reduction, units),
            # The next forward, behind which it hides, lasts as long as the gathers that it waits for.
            _behind(np.maximum(forward, gather.longest), update.longest, units),
        )
    return weights, gradients + reduction, update.longest


def _beside(computing: Array, sending: Array, units: Array) -> Array:
    """Seconds that messages of so many units add to computing beside them: what is longer, and of the
    shorter the unit at the end that has nothing beside it."""
    return np.maximum(computing, sending) + np.minimum(computing, sending) / units - computing


def _behind(computing: Array, sending: Array, units: Array) -> Array:
    """Seconds for which messages outlast the computing that they follow unit by unit."""
    return np.maximum(sending / units, sending - computing * (1 - 1 / units))


def _choose(one: MicroBatch, other: MicroBatch) -> MicroBatch:
    larger = one.total >= other.total
    return MicroBatch(
        **{f.name: np.where(larger, getattr(one, f.name), getattr(other, f.name)) for f in fields(MicroBatch)}
    )
