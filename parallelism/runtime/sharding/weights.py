"""How a unit's weights travel: gathered before use, and brought up to date after the optimizer."""

from __future__ import annotations

import torch

from frontrunner.parallelism.runtime.lanes import Job, Lane, Ticket
from frontrunner.parallelism.runtime.process_groups import Group, ProcessGroups
from frontrunner.parallelism.runtime.sharding.unit import Unit
from frontrunner.parallelism.runtime.transport import Transport


class Gatherer:
    """Gathers units' weights on one rank, ahead of their use."""

    def __init__(self, groups: ProcessGroups, transport: Transport, device: torch.device) -> None:
        self.groups = groups
        self.transport = transport
        self.use_lane = Lane(transport, device)
        self.update_lane = Lane(transport, device)
        self._coming: dict[Unit, Ticket] = {}
        self._updating: dict[Unit, Ticket] = {}

    def start(self, unit: Unit, backward: bool) -> None:
        """Begin to gather a unit, if it is neither there nor on its way."""
        if unit.gathered or unit in self._coming:
            return
        self._settle(unit)
        unit.allocate()
        self._coming[unit] = self.use_lane.submit(self._gather(unit, backward))

    def finish(self, unit: Unit) -> None:
        """Wait until a unit that was started is gathered and up to date."""
        self._settle(unit)
        ticket = self._coming.pop(unit, None)
        if ticket is not None:
            self.use_lane.wait(ticket)
            unit.gathered = True

    def update(self, unit: Unit) -> None:
        """Encode this rank's new weights and start to bring those of its weight shard together.

        They are awaited at the unit's next use.
        """
        unit.encode_master()
        self._updating[unit] = self.update_lane.submit(self._gather_update(unit))

    def advance(self) -> None:
        """Go on with what has arrived."""
        self.update_lane.advance()
        self.use_lane.advance()

    def join(self) -> None:
        """Wait for everything that was started."""
        self.update_lane.join()
        self.use_lane.join()

    def _settle(self, unit: Unit) -> None:
        ticket = self._updating.pop(unit, None)
        if ticket is not None:
            self.update_lane.wait(ticket)

    def _gather(self, unit: Unit, backward: bool) -> Job:
        group, shard = self.groups.weights, unit.rows
        if backward and unit.secondary is not None:
            group, shard = self.groups.secondary, unit.secondary
        full = unit.full.view(-1, unit.row_size)
        if unit.exact:
            rows = full.view(torch.uint8)
        else:
            rows = torch.empty(full.size(0), shard.size(1), dtype=torch.uint8, device=shard.device)
        yield self._all_gather(rows, shard, group)
        if not unit.exact:
            unit.wire.decode(rows, unit.row_size, out=full)
        if unit.secondary is not None and not backward:
            unit.secondary.copy_(rows.chunk(self.groups.secondary.size())[self.groups.secondary.rank()])

    def _gather_update(self, unit: Unit) -> Job:
        if self.groups.network_hop.size() > 1:
            yield self._all_gather(unit.gradient_rows, unit.own_row.clone(), self.groups.network_hop)
        if self.groups.node_hop.size() > 1:
            yield self._all_gather(unit.rows, unit.gradient_rows.clone(), self.groups.node_hop)

    def _all_gather(self, output: torch.Tensor, shard: torch.Tensor, group: Group) -> object:
        return self.transport.all_gather(output.flatten(), shard.flatten(), group)
