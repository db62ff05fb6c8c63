"""One shard unit of the model: its flat state, and how each kind of state is cut.

A unit's parameters follow one another in a flat order of ``padded`` elements. It is cut into nested shards:
``weights`` parts, each into ``gradients / weights`` parts, each into ``optimizer / gradients`` parts. This
rank's :class:`Position` picks its part at each level, so its optimizer shard lies inside its gradient shard,
which lies inside its weight shard.

Weights are kept in the wire format: one encoded row for each optimizer shard inside the weight shard. The
owner encodes a row once per step, and every rank computes with the decoded values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from frontrunner.parallelism.layout import Layout, Position
from frontrunner.parallelism.runtime.process_groups import ShardGroups
from frontrunner.parallelism.runtime.sharding.parameters import Parameter
from frontrunner.parallelism.runtime.wire.formats import WireFormat

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
    """Where the shards of a rank lie in a unit's flat order."""

    padded: int
    weights: Shard
    gradients: Shard
    optimizer: Shard

    @classmethod
    def of(cls, numel: int, layout: Layout, position: Position, alignment: int = ALIGNMENT) -> Geometry:
        """Shards of ``numel`` elements, padded to a multiple of ``alignment`` for each of their holders."""
        step = layout.holders * alignment
        padded = math.ceil(numel / step) * step
        start, size, shards = 0, padded, []
        parts = (layout.weights, layout.gradients // layout.weights, layout.optimizer // layout.gradients)
        for count, index in zip(parts, position[:3], strict=True):
            size //= count
            start += index * size
            shards.append(Shard(start, start + size))
        return cls(padded, *shards)


class ShardUnit:
    """Storage of one shard unit on one rank; ``groups`` are those over which it is cut.

    ``rows`` is this rank's encoded weight shard: uint8 [optimizer / weights, row_bytes]. ``full`` is the
    decoded flat unit; its storage exists between :meth:`allocate` and :meth:`free` (always, if weights are
    not cut). ``gradients`` is the flat accumulator of this rank's gradient shard. ``master`` is its float32
    optimizer shard (a view of its row if that is float32). ``secondary`` holds the rows for the backward
    inside a node (hpZ), or None. ``residual`` is what encoding lost of the last micro-batch's gradients, or
    None without error feedback.
    """

    def __init__(
        self,
        name: str,
        parameters: dict[str, Parameter],
        groups: ShardGroups,
        device: torch.device,
        dtype: torch.dtype,
        gradient_dtype: torch.dtype,
        wire: WireFormat,
        alignment: int,
    ) -> None:
        self.name = name
        self.parameters = parameters
        self.groups = groups
        layout = groups.layout
        self.offsets: dict[str, int] = {}
        numel = 0
        for key, parameter in parameters.items():
            self.offsets[key] = numel
            # On a quantised wire no block holds two parameters: a norm's ones would swamp a bias's values.
            numel += math.ceil(parameter.numel / alignment) * alignment
        self.numel = numel
        self.geometry = geometry = Geometry.of(numel, layout, groups.position, alignment)
        self.wire = wire
        self.sharded = layout.weights > 1
        self.exact = wire.keeps(dtype)
        count = layout.optimizer // layout.weights
        self.rows = torch.zeros(count, wire.row_bytes(self.row_size), dtype=torch.uint8, device=device)
        self.own_index = (geometry.optimizer.start - geometry.weights.start) // self.row_size
        self.full = (
            torch.empty(geometry.padded, dtype=dtype, device=device)
            if self.sharded
            else self.rows.view(dtype).flatten()
        )
        self.gathered = True
        self.gradients = torch.zeros(geometry.gradients.size, dtype=gradient_dtype, device=device)
        self.master = (
            self.own_row.view(torch.float32)[0]
            if dtype == torch.float32 and self.exact
            else torch.zeros(geometry.optimizer.size, device=device)
        )
        self.secondary: torch.Tensor | None = None
        self.residual: torch.Tensor | None = None

    @property
    def row_size(self) -> int:
        """Elements in a row."""
        return self.geometry.optimizer.size

    @property
    def own_row(self) -> torch.Tensor:
        """This rank's row, uint8 [1, row_bytes]."""
        return self.rows[self.own_index : self.own_index + 1]

    @property
    def master_in_rows(self) -> bool:
        """Whether the master weights are this rank's row."""
        return self.own_row.data_ptr() == self.master.data_ptr()

    @property
    def own_gradients(self) -> torch.Tensor:
        """The accumulated gradients of this rank's optimizer shard, a view."""
        mine, shard = self.geometry.optimizer, self.geometry.gradients
        return self.gradients[mine.start - shard.start : mine.end - shard.start]

    @property
    def gradient_rows(self) -> torch.Tensor:
        """The rows of the weight shard that belong to this rank's gradient shard, a view."""
        first = (self.geometry.gradients.start - self.geometry.weights.start) // self.row_size
        return self.rows[first : first + self.geometry.gradients.size // self.row_size]

    def view(self, key: str) -> torch.Tensor:
        """The gathered parameter ``key`` in its shape, with its own version counter.

        Gathering writes to ``full`` while autograd holds these views; their values are the same each time.
        """
        start, parameter = self.offsets[key], self.parameters[key]
        return self.full[start : start + parameter.numel].view(parameter.shape).data

    def fill(self, values: Callable[[Parameter], torch.Tensor]) -> None:
        """Set weights and master from ``values``, one parameter at a time."""
        flat = torch.zeros(self.geometry.padded, device=self.rows.device)
        for key, parameter in self.parameters.items():
            start = self.offsets[key]
            flat[start : start + parameter.numel] = values(parameter).flatten()
        self.wire.encode(flat[slice(*self.geometry.weights)].view(-1, self.row_size), out=self.rows)
        self.master.copy_(flat[slice(*self.geometry.optimizer)])

    def encode_master(self) -> None:
        """Write the updated master weights to this rank's row."""
        if not self.master_in_rows:
            self.wire.encode(self.master.view(1, -1), out=self.own_row)

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
