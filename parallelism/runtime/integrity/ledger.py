"""Checksums of a step's messages: what a rank sent is compared with what its peers received.

Sender and receiver each keep one running checksum for every peer of a communicator. They meet in one small
exchange after the step. A message that arrived changed therefore names the two ranks that it travelled
between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from frontrunner.parallelism.runtime.integrity.checksums import digest, digests
from frontrunner.parallelism.runtime.process_groups import Group, ProcessGroups, ShardGroups
from frontrunner.parallelism.trace_events import GRADIENTS, REDUCTION, UPDATE, WEIGHTS

#: What the messages of a lane carry.
_KINDS = {
    WEIGHTS: "gathered weights",
    UPDATE: "updated weights",
    GRADIENTS: "gradients",
    REDUCTION: "gradients",
}


class Changed(NamedTuple):
    """Messages of a kind that rank ``sender`` sent and ``receiver`` received as something else."""

    kind: str
    sender: int
    receiver: int


class CheckedWork:
    """A started collective; ``arrived`` runs once, when it is complete and before its data are used."""

    def __init__(self, work: Any, arrived: Callable[[], None]) -> None:
        self.work = work
        self.arrived: Callable[[], None] | None = arrived

    def is_completed(self) -> bool:
        done: bool = self.work.is_completed()
        return done

    def wait(self) -> None:
        self.work.wait()
        if self.arrived is not None:
            arrived, self.arrived = self.arrived, None
            arrived()


class _Channel:
    """A communicator's messages of one lane, weighted by their number, so their order of arrival is free."""

    def __init__(self, kind: str, group: Group, device: torch.device) -> None:
        self.kind = kind
        self.group = group
        self.sent, self.received = torch.zeros(2, group.size(), dtype=torch.int64, device=device)
        self.messages = 0


def _lanes(groups: ShardGroups) -> Iterator[tuple[str, Sequence[Group]]]:
    """The groups in which each lane sends."""
    yield WEIGHTS, (groups.weights, groups.secondary)
    yield UPDATE, (groups.network_hop, groups.node_hop)
    yield GRADIENTS, groups.block_hops
    yield REDUCTION, (*groups.network_hops, *groups.replica_hops, groups.replicas)


class Ledger:
    """The channels of one rank, in an order that is the same on all ranks."""

    def __init__(self, groups: ProcessGroups, device: torch.device) -> None:
        self._channels: dict[tuple[str, Group], _Channel] = {}
        for lane, members in [*_lanes(groups), *_lanes(groups.experts)]:
            for group in members:
                if group.size() > 1:
                    self._channels.setdefault((lane, group), _Channel(_KINDS[lane], group, device))
        self._device = device
        self._results: dict[Group, list[Tensor]] = {}
        self._holds: dict[object, Tensor] = {}
        self.changed_in_use = torch.zeros((), dtype=torch.bool, device=device)

    def begin(self) -> None:
        """Forget the messages of earlier steps."""
        self._results, self._holds = {}, {}
        self.changed_in_use.zero_()
        for channel in self._channels.values():
            channel.sent.zero_()
            channel.received.zero_()
            channel.messages = 0

    def gather(self, start: Callable[[], Any], output: Tensor, shard: Tensor, group: Group, lane: str) -> Any:
        """Start an all-gather of ``shard`` into ``output`` and check what arrives."""
        return self._checked(start, shard.view(1, -1), output.view(group.size(), -1), group, lane)

    def exchange(
        self, start: Callable[[], Any], received: Tensor, chunks: Tensor, group: Group, lane: str
    ) -> Any:
        """Start an all-to-all of the rows of ``chunks`` and check what arrives in ``received``."""
        return self._checked(start, chunks, received, group, lane)

    def hold(self, owner: object, tensor: Tensor) -> None:
        """Note that ``tensor`` must not change until :meth:`release`."""
        self._holds[owner] = digest([tensor])

    def release(self, owner: object, tensor: Tensor) -> None:
        """Compare with what was noted, if anything was; ``changed_in_use`` says so."""
        held = self._holds.pop(owner, None)
        if held is not None:
            self.changed_in_use |= held != digest([tensor])

    def result(self, tensor: Tensor, group: Group) -> None:
        """Keep the checksum of what each rank of ``group`` must have equal after an all-reduce."""
        self._results.setdefault(group, []).append(digest([tensor]))

    def results(self, group: Group) -> Tensor:
        """The checksum of all results in ``group``, int64 []; zero without any."""
        found = self._results.get(group)
        return digest(found) if found else torch.zeros((), dtype=torch.int64, device=self._device)

    def compare(self, exchange: Callable[[Tensor, Tensor, Group], None]) -> list[Changed]:
        """What this rank received changed since :meth:`begin`; all messages have arrived. Collective.

        ``exchange`` is an all-to-all of the second tensor's rows into the first.
        """
        differs = []
        for channel in self._channels.values():
            said = torch.empty_like(channel.sent)
            exchange(said.view(-1, 1), channel.sent.view(-1, 1), channel.group)
            differs.append(said != channel.received)
        if not differs or not torch.cat(differs).any().item():
            return []
        return [
            Changed(channel.kind, sender, dist.get_rank())
            for channel, changed in zip(self._channels.values(), differs, strict=True)
            for sender, bad in zip(dist.get_process_group_ranks(channel.group), changed.tolist(), strict=True)
            if bad
        ]

    def _checked(
        self, start: Callable[[], Any], sent: Tensor, received: Tensor, group: Group, lane: str
    ) -> Any:
        channel = self._channels.get((lane, group))
        if channel is None:
            return start()
        weight = 2 * channel.messages + 1
        channel.messages += 1
        channel.sent += weight * digests(sent)

        def arrived() -> None:
            channel.received += weight * digests(received)

        return CheckedWork(start(), arrived)
