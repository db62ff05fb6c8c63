"""One unit of the sharded model: its flat state and how each kind of it is cut.

A unit's parameters stand one after the other in a flat order of ``padded`` elements, which is cut into
nested shards: ``weights`` parts, each into ``gradients / weights`` parts, each into ``optimizer / gradients``
parts. This rank's :class:`Position` picks its part at each level, so its optimizer shard lies inside its
gradient shard, which lies inside its weight shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from frontrunner.parallelism.layout import Layout, Position
from frontrunner.parallelism.runtime.sharding.parameters import Parameter

ALIGNMENT = 8  # elements: 16 bytes of bfloat16, the widest load and store of a device


class Shard(NamedTuple):
    """A half-open range of a unit's flat order."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Geometry:
    """Where a rank's shards lie in a unit's flat order."""

    padded: int
    weights: Shard
    gradients: Shard
    optimizer: Shard

    @classmethod
    def of(cls, numel: int, layout: Layout, position: Position) -> Geometry:
        """Shards of ``numel`` elements, padded so that every data-parallel rank's part is aligned."""
        step = layout.data * ALIGNMENT
        padded = math.ceil(numel / step) * step
        start, size, shards = 0, padded, []
        parts = (layout.weights, layout.gradients // layout.weights, layout.optimizer // layout.gradients)
        for count, index in zip(parts, position[:3], strict=True):
            size //= count
            start += index * size
            shards.append(Shard(start, start + size))
        return cls(padded, *shards)


class Unit:
    """Storage of one unit on one rank. Tensors are flat; dtypes are those of the run.

    ``weights`` is this rank's weight shard, ``full`` the gathered unit (the same tensor where weights are
    not cut; otherwise its storage exists only between :meth:`allocate` and :meth:`free`), ``gradients`` the
    accumulator of this rank's gradient shard, ``master`` its float32 optimizer shard (a view of ``weights``
    when those are float32).
    """

    def __init__(
        self,
        name: str,
        parameters: dict[str, Parameter],
        layout: Layout,
        position: Position,
        device: torch.device,
        dtype: torch.dtype,
        gradient_dtype: torch.dtype,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.offsets: dict[str, int] = {}
        numel = 0
        for key, parameter in parameters.items():
            self.offsets[key] = numel
            numel += parameter.numel
        self.numel = numel
        self.geometry = geometry = Geometry.of(numel, layout, position)
        self.sharded = layout.weights > 1
        self.weights = torch.zeros(geometry.weights.size, dtype=dtype, device=device)
        self.full = torch.empty(geometry.padded, dtype=dtype, device=device) if self.sharded else self.weights
        self.gathered = True
        self.gradients = torch.zeros(geometry.gradients.size, dtype=gradient_dtype, device=device)
        self.master = (
            self.own(self.weights, geometry.weights)
            if dtype == torch.float32
            else torch.zeros(geometry.optimizer.size, device=device)
        )

    def own(self, tensor: torch.Tensor, shard: Shard) -> torch.Tensor:
        """This rank's optimizer shard inside a tensor that holds ``shard``."""
        mine = self.geometry.optimizer
        return tensor[mine.start - shard.start : mine.end - shard.start]

    def view(self, key: str) -> torch.Tensor:
        """The gathered parameter ``key``, in its shape, with a version counter of its own.

        Gathering writes to ``full`` while autograd holds these views; their values are the same each time.
        """
        start, parameter = self.offsets[key], self.parameters[key]
        return self.full[start : start + parameter.numel].view(parameter.shape).data

    def fill(self, values: Callable[[Parameter], torch.Tensor]) -> None:
        """Set weights and master from ``values``, one parameter at a time."""
        flat = torch.zeros(self.geometry.padded, device=self.weights.device)
        for key, parameter in self.parameters.items():
            start = self.offsets[key]
            flat[start : start + parameter.numel] = values(parameter).flatten()
        self.weights.copy_(flat[slice(*self.geometry.weights)])
        self.master.copy_(flat[slice(*self.geometry.optimizer)])

    def allocate(self) -> None:
        """Give the gathered unit its storage."""
        self.full.untyped_storage().resize_(self.full.nbytes)

    def free(self) -> None:
        """Return the gathered unit's storage; views of it stay valid for the next :meth:`allocate`."""
        if self.sharded:
            self.full.untyped_storage().resize_(0)
            self.gathered = False

    def runs(self, wanted: Callable[[Parameter], bool]) -> list[slice]:
        """Ranges of this rank's optimizer shard that hold ``wanted`` parameters, adjacent ones joined."""
        mine, runs = self.geometry.optimizer, list[list[int]]()
        for key, parameter in self.parameters.items():
            start = max(self.offsets[key], mine.start) - mine.start
            end = min(self.offsets[key] + parameter.numel, mine.end) - mine.start
            if start >= end or not wanted(parameter):
                continue
            if runs and runs[-1][1] == start:
                runs[-1][1] = end
            else:
                runs.append([start, end])
        return [slice(*run) for run in runs]
