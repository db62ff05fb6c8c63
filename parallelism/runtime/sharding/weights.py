"""How a shard unit's weights travel: gathered before use, and updated after the optimizer."""

from __future__ import annotations

import torch

from frontrunner.parallelism.runtime.comm_streams import CommStream, Handle, Job
from frontrunner.parallelism.runtime.process_groups import Group
from frontrunner.parallelism.runtime.sharding.shard_unit import ShardUnit
from frontrunner.parallelism.runtime.streams import Streams
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.trace_events import UPDATE, WEIGHTS


class Gatherer:
    """Gathers weights of shard units on one rank, ahead of use."""

    def __init__(self, transport: Transport, streams: Streams) -> None:
        self.transport = transport
        self.use_stream = CommStream(transport, streams, WEIGHTS)
        self.update_stream = CommStream(transport, streams, UPDATE)
        self._coming: dict[ShardUnit, Handle] = {}
        self._updating: dict[ShardUnit, Handle] = {}

    def start(self, unit: ShardUnit, backward: bool) -> None:
        """Start gathering a unit, unless it is already there or in flight."""
        if unit.gathered or unit in self._coming:
            return
        self._settle(unit)
        unit.allocate()
        self._coming[unit] = self.use_stream.submit(self._gather(unit, backward))

    def finish(self, unit: ShardUnit) -> None:
        """Wait until a started unit is gathered and up to date."""
        self._settle(unit)
        handle = self._coming.pop(unit, None)
        if handle is not None:
            self.use_stream.wait(handle)
            unit.gathered = True
            if self.transport.ledger is not None:
                self.transport.ledger.hold(unit, unit.full)

    def free(self, unit: ShardUnit) -> None:
        """Free a unit that is gathered; nothing if its weights are not cut."""
        if self.transport.ledger is not None:
            self.transport.ledger.release(unit, unit.full)
        unit.free()

    def update(self, unit: ShardUnit) -> None:
        """Encode this rank's new weights and start collecting those of its weight shard.

        The unit's next use waits for them.
        """
        unit.encode_master()
        self._updating[unit] = self.update_stream.submit(self._gather_update(unit))

    def advance(self) -> None:
        """Continue with what has arrived."""
        self.update_stream.advance()
        self.use_stream.advance()

    def settle_masters(self) -> None:
        """Wait for updates that write to master weights: those of float32 rows, which are their own masters.

        The bytes stay the same, but whoever reads them meanwhile may not rely on that.
        """
        for unit in list(self._updating):
            if unit.master_in_rows:
                self._settle(unit)

    def join(self) -> None:
        """Wait for everything that was started."""
        self.update_stream.join()
        self.use_stream.join()

    def _settle(self, unit: ShardUnit) -> None:
        handle = self._updating.pop(unit, None)
        if handle is not None:
            self.update_stream.wait(handle)

    def _gather(self, unit: ShardUnit, backward: bool) -> Job:
        group, shard = unit.groups.weights, unit.rows
        if backward and unit.secondary is not None:
            group, shard = unit.groups.secondary, unit.secondary
        full = unit.full.view(-1, unit.row_size)
        if unit.exact:
            rows = full.view(torch.uint8)
        else:
            rows = torch.empty(full.size(0), shard.size(1), dtype=torch.uint8, device=shard.device)
        yield self._all_gather(rows, shard, group)
        if not unit.exact:
            unit.wire.decode(rows, unit.row_size, out=full)
        if unit.secondary is not None and not backward:
            group = unit.groups.secondary
            unit.secondary.copy_(rows.chunk(group.size())[group.rank()])

    def _gather_update(self, unit: ShardUnit) -> Job:
        if unit.groups.network_hop.size() > 1:
            yield self._all_gather(unit.gradient_rows, unit.own_row.clone(), unit.groups.network_hop)
        if unit.groups.node_hop.size() > 1:
            yield self._all_gather(unit.rows, unit.gradient_rows.clone(), unit.groups.node_hop)

    def _all_gather(self, output: torch.Tensor, shard: torch.Tensor, group: Group) -> object:
        return self.transport.all_gather(output.flatten(), shard.flatten(), group)
