"""How a unit's gradients travel: to the block in each micro-batch, across the network once per step.

Every hop is an exchange of chunks, each of which is summed in float32 by the rank that keeps it, in the
order of ranks: the result does not depend on timing, and a chunk is rounded to the wire's type once.
"""

from __future__ import annotations

import torch

from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.sharding.unit import Unit
from frontrunner.parallelism.runtime.transport import Transport


class Reducer:
    """Reduces units' gradients on one rank; ``wire`` is the dtype that travels."""

    def __init__(self, groups: ProcessGroups, transport: Transport, wire: torch.dtype) -> None:
        self.groups = groups
        self.transport = transport
        self.wire = wire
        self._whole: dict[Unit, torch.Tensor] = {}

    def collect(self, unit: Unit, key: str, gradient: torch.Tensor) -> None:
        """Take one parameter's gradient of this micro-batch."""
        start = unit.offsets[key]
        part = slice(start, start + gradient.numel())
        if self.groups.layout.gradients == 1:
            unit.gradients[part] += gradient.flatten()
            return
        if unit not in self._whole:
            self._whole[unit] = torch.zeros(unit.geometry.padded, dtype=self.wire, device=gradient.device)
        self._whole[unit][part] = gradient.flatten()

    def within_block(self, unit: Unit) -> None:
        """Add this micro-batch's gradients, summed over the gradient block, to the rank's shard."""
        layout = self.groups.layout
        if layout.gradients == 1:
            return
        whole = self._whole.pop(unit, None)
        if whole is None:
            whole = torch.zeros(unit.geometry.padded, dtype=self.wire, device=unit.gradients.device)
        # Flat order is (weights, gradients); the block's ranks are in order (gradients, weights).
        parts = whole.view(layout.weights, layout.gradients // layout.weights, -1)
        chunks = parts.transpose(0, 1).reshape(layout.gradients, -1)
        unit.gradients += self._sum_of_exchange(chunks, self.groups.gradients)

    def across_network(self, unit: Unit) -> None:
        """Reduce the accumulated shard over the optimizer's block and then over replicas."""
        own = unit.own(unit.gradients, unit.geometry.gradients)
        hops = self.groups.network_hop.size()
        if hops > 1:
            own.copy_(self._sum_of_exchange(unit.gradients.view(hops, -1), self.groups.network_hop))
        replicas = self.groups.replicas.size()
        if replicas > 1:
            total = self._sum_of_exchange(own.view(replicas, -1), self.groups.replicas).to(self.wire)
            gathered = torch.empty(own.numel(), dtype=self.wire, device=own.device)
            self.transport.all_gather(gathered, total, self.groups.replicas)
            own.copy_(gathered)

    def across_tensor_ranks(self, units: list[Unit]) -> None:
        """Sum what tensor ranks or tied stages hold parts of: a few parameters, in one message each."""
        owned = [(unit, unit.own(unit.gradients, unit.geometry.gradients)) for unit in units]
        if self.groups.tensor.size() > 1:
            parts = [own[run] for unit, own in owned for run in unit.runs(lambda p: p.partial_gradient)]
            if parts:
                packed = torch.cat(parts).float()
                self.transport.all_reduce(packed, self.groups.tensor)
                for part, total in zip(parts, packed.split([p.numel() for p in parts]), strict=True):
                    part.copy_(total)
        if self.groups.embedding.size() > 1:
            for unit, own in owned:
                if any(parameter.shared for parameter in unit.parameters.values()):
                    total = own.float()
                    self.transport.all_reduce(total, self.groups.embedding)
                    own.copy_(total)

    def _sum_of_exchange(self, chunks: torch.Tensor, group: object) -> torch.Tensor:
        """[n, m] chunks, one for each rank of the group, to the float32 sum [m] of what arrives."""
        chunks = chunks.to(self.wire)
        received = torch.empty_like(chunks)
        self.transport.exchange(received, chunks, group)
        return received.sum(dim=0, dtype=torch.float32)
