"""How a shard unit's gradients travel: to the block in each micro-batch, over the network once per step.

Every hop exchanges encoded chunks. The rank that keeps a chunk sums it in float32 in the order of ranks, so
the result does not depend on timing, and a chunk is rounded to the wire once per hop. A block that spans
nodes is reduced inside each node first, then across nodes (ZeRO++'s qgZ, section 3.3, whatever the wire), so
the network carries each node's sum, not its addends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch

from frontrunner.parallelism.runtime.comm_streams import CommStream, Handle, Job
from frontrunner.parallelism.runtime.process_groups import Group, ProcessGroups, ShardGroups
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.streams import Streams
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.runtime.wire.formats import WireFormat
from frontrunner.parallelism.trace_events import GRADIENTS, REDUCTION

Keep = Callable[[torch.Tensor], object]


def _twice(groups: ShardGroups) -> bool:
    """Whether a job on the network uses one communicator twice."""
    return groups.replicas.size() > 1 and groups.replicas in groups.replica_hops


class Reducer:
    """Reduces gradients of shard units on one rank, collected in the model's ``dtype``."""

    def __init__(
        self,
        groups: ProcessGroups,
        transport: Transport,
        streams: Streams,
        dtype: torch.dtype,
        block_wire: WireFormat,
        network_wire: WireFormat,
    ) -> None:
        self.groups = groups
        self.transport = transport
        self.dtype = dtype
        self.block_wire = block_wire
        self.network_wire = network_wire
        # Jobs on the first stream hold a whole unit's gradients, on the second what the block leaves of them.
        self.block_stream = CommStream(transport, streams, GRADIENTS, depth=2)
        # Experts have their own: when a unit's block is done depends on timing, so the order of the two
        # kinds does too, and behind each other they could wait for one another for ever.
        self.network_streams = [
            CommStream(transport, streams, REDUCTION, one_at_a_time=_twice(shards))
            for shards in ((groups,) if groups.experts is groups else (groups, groups.experts))
        ]
        self._most_leaving = 2 * groups.layout.gradients
        self._leaving: deque[tuple[ShardUnit, Handle]] = (
            deque()
        )  # units on the way to the network, with the block's job
        self._across: dict[ShardUnit, Handle] = {}
        self._whole: dict[ShardUnit, torch.Tensor] = {}

    def collect(self, unit: ShardUnit, key: str, gradient: torch.Tensor) -> None:
        """Take one parameter's gradient of this micro-batch."""
        start = unit.offsets[key]
        part = slice(start, start + gradient.numel())
        if unit.groups.layout.gradients == 1:
            unit.gradients[part] += gradient.flatten()
            return
        if unit not in self._whole:
            self._whole[unit] = torch.zeros(unit.geometry.padded, dtype=self.dtype, device=gradient.device)
        self._whole[unit][part] = gradient.flatten()

    def within_block(self, unit: ShardUnit, last: bool) -> None:
        """Start adding this micro-batch's gradients, summed over the gradient block, to the rank's shard.

        After the ``last`` micro-batch of a step, the shard continues over the network.
        """
        if last:
            self._make_room()
        handle = self.block_stream.submit(self._block_job(unit, last))
        if last:
            self._leaving.append((unit, handle))

    def across_tensor_ranks(self, units: list[ShardUnit]) -> None:
        """Sum the few parameters whose gradients tensor ranks or tied stages share, one message each."""
        if self.groups.tensor.size() > 1:
            parts = [
                unit.own_gradients[run] for unit in units for run in unit.runs(lambda p: p.partial_gradient)
            ]
            if parts:
                packed = torch.cat(parts).float()
                self.transport.all_reduce(packed, self.groups.tensor)
                for part, total in zip(parts, packed.split([p.numel() for p in parts]), strict=True):
                    part.copy_(total)
        if self.groups.embedding.size() > 1:
            for unit in units:
                if any(parameter.shared for parameter in unit.parameters.values()):
                    total = unit.own_gradients.float()
                    self.transport.all_reduce(total, self.groups.embedding)
                    unit.own_gradients.copy_(total)

    def advance(self) -> None:
        """Continue with what has arrived."""
        self.block_stream.advance()
        for stream in self.network_streams:
            stream.advance()

    def join(self) -> None:
        """Wait for everything that was started."""
        self.block_stream.join()
        for stream in self.network_streams:
            stream.join()
        self._leaving.clear()
        self._across.clear()

    def _make_room(self) -> None:
        """Bound what is in flight: wait until one of the leaving units has arrived.

        All ranks wait for the same unit at the same point of the program. The end of a job is not such a
        point, because it depends on timing. Waiting there could deadlock: each rank would wait for a peer's
        next hop, while that peer waits for weights from behind another waiting rank.
        """
        if len(self._leaving) == self._most_leaving:
            unit, handle = self._leaving.popleft()
            self.block_stream.wait(handle)
            self._network_stream(unit).wait(self._across.pop(unit))

    def _network_stream(self, unit: ShardUnit) -> CommStream:
        return self.network_streams[0 if unit.groups is self.groups else -1]

    def _block_job(self, unit: ShardUnit, last: bool) -> Job:
        if unit.groups.layout.gradients > 1:
            rows, size = self._encode_whole(unit)
            job = self._reduce(rows, size, unit.groups.block_hops, self.block_wire, unit.gradients.add_)
            del rows  # the job drops it once it has been sent
            yield from job
        if last:
            self._across[unit] = self._network_stream(unit).submit(self._network_job(unit))

    def _encode_whole(self, unit: ShardUnit) -> tuple[torch.Tensor, int]:
        """A unit's gradients of this micro-batch as chunks for the block's ranks, and the chunk length."""
        layout = unit.groups.layout
        whole = self._whole.pop(unit, None)
        if whole is None:
            whole = torch.zeros(unit.geometry.padded, dtype=self.dtype, device=unit.gradients.device)
        self.block_stream.borrow(whole)
        if unit.residual is not None:
            whole = whole + unit.residual
        # Flat order is (weights, gradients); the block's ranks are in order (gradients, weights).
        parts = whole.view(layout.weights, layout.gradients // layout.weights, -1).transpose(0, 1)
        if unit.residual is not None:
            self._keep_residual(unit, whole)
        return self._encode(parts, unit.groups.block_hops, self.block_wire)

    def _network_job(self, unit: ShardUnit) -> Job:
        """Reduce the accumulated shard over the optimizer's block, then over replicas."""
        own = unit.own_gradients
        if unit.groups.network_hop.size() > 1:
            hops = unit.groups.network_hops
            chunks = unit.gradients.view(unit.groups.network_hop.size(), 1, -1)
            rows, size = self._encode(chunks, hops, self.network_wire)
            yield from self._reduce(rows, size, hops, self.network_wire, own.copy_)
        replicas = unit.groups.replicas.size()
        if replicas > 1:
            totals: list[torch.Tensor] = []
            hops = unit.groups.replica_hops
            rows, size = self._encode(own.view(replicas, 1, -1), hops, self.network_wire)
            yield from self._reduce(rows, size, hops, self.network_wire, totals.append)
            total = totals[0].to(self.dtype)
            gathered = torch.empty(own.numel(), dtype=self.dtype, device=own.device)
            yield self.transport.all_gather(gathered, total, unit.groups.replicas)
            own.copy_(gathered)

    def _encode(
        self, chunks: torch.Tensor, hops: Sequence[Group], wire: WireFormat
    ) -> tuple[torch.Tensor, int]:
        """[a, b, m] chunks for a x b ranks in order as rows in the order of the hops, and m."""
        size = chunks.size(-1)
        if len(hops) > 1:
            # Send each rank of the node the chunks of its counterparts on all nodes, in the order of nodes.
            chunks = chunks.reshape(-1, hops[0].size(), size).transpose(0, 1)
        return wire.encode(chunks), size

    def _reduce(
        self, rows: torch.Tensor, size: int, hops: Sequence[Group], wire: WireFormat, keep: Keep
    ) -> Job:
        """Sum encoded chunks of ``size`` values over the hops; ``keep`` one's own [size]."""
        for hop, group in enumerate(hops):
            members = group.size()
            held = rows.size(0) // members  # chunks that this rank goes on with
            received = torch.empty_like(rows)
            yield self.transport.exchange(received.view(members, -1), rows.view(members, -1), group)
            rows = received  # and what was sent is free
            sums = torch.empty(held, size, device=rows.device)
            wire.decode_sum(rows.view(members, held, -1), out=sums)
            if hop + 1 < len(hops):
                rows = wire.encode(sums.view(held, 1, size))
        keep(sums[0])

    def _keep_residual(self, unit: ShardUnit, whole: torch.Tensor) -> None:
        """Keep what encoding loses now, and add it to the next micro-batch's gradients (error feedback)."""
        rows = whole.view(unit.groups.layout.gradients, -1)
        arrives = torch.empty_like(rows)
        self.block_wire.decode(self.block_wire.encode(rows), rows.size(-1), out=arrives)
        # Discard what an overflow leaves, which would spoil every later step.
        # In place: the first residual was allocated on the computing stream, which could give its memory away
        # while this stream still reads it.
        assert unit.residual is not None
        torch.sub(whole, arrives.flatten(), out=unit.residual)
        torch.nan_to_num_(unit.residual, nan=0.0, posinf=0.0, neginf=0.0)
