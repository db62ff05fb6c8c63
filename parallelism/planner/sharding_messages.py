"""What messages of data-parallel ranks take, for parameters that are cut in one way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frontrunner.parallelism.planner.candidates import Array, Candidates, Workload
from frontrunner.parallelism.planner.collectives import Fabric, Times


class Cut(NamedTuple):
    """Parameters [n] that are cut in the same way: all and those of layers, in how many units and gathers."""

    numel: Array
    layers: Array
    units: Array
    gathers: Array


class Sharding(NamedTuple):
    """What messages of data-parallel ranks keep busy; ``reduced`` are seconds [n] after ``reduction``."""

    gather: Times
    second: Times
    block: Times
    reduction: Times
    reduced: Array
    update: Times

    def joined(self, other: Sharding) -> Sharding:
        """The messages of both."""
        return Sharding(
            self.gather + other.gather,
            self.second + other.second,
            self.block + other.block,
            self.reduction + other.reduction,
            self.reduced + other.reduced,
            self.update + other.update,
        )


def sharding(workload: Workload, c: Candidates, fabric: Fabric, apart: Array, cut: Cut) -> Sharding:
    """The messages of parameters whose holders are ``apart`` devices from each other."""
    profile, width = workload.profile, float(workload.compute_bytes)
    numel, units, weight = cut.numel, cut.units, workload.weight_bytes(c)
    gather = fabric.ring(c.weights, apart, numel * c.weight_wire, cut.gathers)
    second = fabric.ring(c.secondary, apart, cut.layers * c.weight_wire, cut.gathers)
    reduce = fabric.reduce_scatter if profile.scatters else fabric.exchange
    block = reduce(c.gradients, apart, numel * c.gradient_wire, units)
    stride, beyond = apart * c.gradients, apart * c.optimizer
    hop = fabric.exchange(c.optimizer / c.gradients, stride, numel / c.gradients * c.network_wire, units)
    copied = numel / c.optimizer * c.network_wire
    reduction, reduced = hop, np.zeros(len(c))
    if profile.scatters:
        reduced = fabric.all_reduce(c.data / c.optimizer, beyond, copied, units)
    else:
        copies = fabric.exchange(c.data / c.optimizer, beyond, copied, units)
        copies = copies + fabric.ring(c.data / c.optimizer, beyond, numel / c.optimizer * width, units)
        reduction = hop + copies
    update = fabric.ring(c.optimizer / c.gradients, stride, numel / c.gradients * weight, units)
    in_block = numel / c.weights * weight
    update = update + fabric.ring(c.gradients / c.weights, apart * c.weights, in_block, units)
    return Sharding(gather, second, block, reduction, reduced, update)
