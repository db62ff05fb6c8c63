"""Checks a rank's state and messages while it trains.

*Every step*, where fewer than three ranks hold the same optimizer state: masters and moments are unchanged
from one update to the next. *Every ``watch.verify_every_steps`` steps*: all messages of the step arrive as
they were sent, working weights are what the masters encode to and do not change while they are in use, and
state that several ranks hold is equal on all of them. *Before each checkpoint*: the same of the state, so
that no checkpoint holds what this could have found.

Everything is computed on the device. Only a step that is verified waits for a result, and ranks share ten
numbers each.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.integrity import copies
from frontrunner.parallelism.runtime.integrity.checksums import digest
from frontrunner.parallelism.runtime.integrity.findings import Finding, corrupted
from frontrunner.parallelism.runtime.integrity.ledger import Ledger
from frontrunner.parallelism.runtime.process_groups import Group

if TYPE_CHECKING:
    from frontrunner.parallelism.runtime.sharding.optimizer import ShardedAdamW

_HELD = ("master weights", "first moments", "second moments")
_LOCAL = (
    *(f"{kind} changed between two updates" for kind in _HELD),
    "working weights are not what the master weights encode to",
    "weights changed while they were in use",
)


class Verifier:
    """The checks of one rank; every rank calls every method at the same step."""

    def __init__(self, spec: RunSpec, optimizer: ShardedAdamW) -> None:
        self.every = spec.watch.verify_every_steps
        self.optimizer = optimizer
        self.engine = engine = optimizer.engine
        self.groups = engine.groups
        self.ledger = Ledger(engine.groups, engine.device)
        self.verified: int | None = None  # the last step after which all state was verified
        self._taken = 0
        self._held: Tensor | None = None  # checksums after the last update
        self._in_use: Tensor | None = None  # checksum of the weights of a step that is verified
        self._bad = torch.zeros(len(_LOCAL), dtype=torch.int64, device=engine.device)
        self._keys = copies.keys(engine.groups.layout)
        # Experts have other copies than what every rank holds.
        of_experts = [unit.groups is not engine.groups for unit in engine.units]
        self._parts = [
            [u for u, of in zip(engine.units, of_experts, strict=True) if of is part]
            for part in (False, True)
        ]
        # Three copies or more tell which one is wrong.
        self._watched = any(of.replicas.size() < 3 for of in (engine.groups, engine.groups.experts))
        # Without sequence parallelism tensor ranks compute these gradients each for itself.
        exact = spec.training.deterministic or engine.device.type == "cpu"
        self._shared = lambda p: p.split_dim is None and (exact or p.partial_gradient)

    def restart(self) -> None:
        """Forget all faults: the state was replaced."""
        self._in_use = self.verified = None
        self._held = self._state() if self._watched else None
        self._bad.zero_()

    def begin_step(self) -> None:
        """Before the first forward of a step."""
        if not self.every:
            return
        if self._watched and self._held is None:
            self._held = self._state()
        if (self._taken + 1) % self.every == 0:
            self.engine.gatherer.join()
            self.ledger.begin()
            self.engine.transport.ledger = self.ledger
            self._note(3, self._not_encoded(), self._taken)
            self._in_use = self._weights()

    @torch.no_grad()
    def before_update(self, number: int) -> None:
        """When the gradients of step ``number`` (from 0) are there."""
        if not self.every:
            return
        self._compare_held(number)
        if self._in_use is not None:
            changed = (self._weights() != self._in_use).any()
            self._note(4, changed | self.ledger.changed_in_use, number)

    def masters_updated(self) -> None:
        """When masters and moments have their new values, and before other ranks get them.

        Rows of float32 are their own masters, so updates on their way write to what is read here.
        """
        if self.every and self._watched:
            self._held = self._state()

    @torch.no_grad()
    def after_update(self, number: int) -> None:
        """After the update. Raises Corrupted on every rank if a step that is verified went wrong."""
        if not self.every:
            return
        self._taken += 1
        if self._in_use is not None:
            self.engine.gatherer.join()
            self.engine.transport.ledger = None
            self._verify(number, self._in_use)
            self._in_use = None

    @torch.no_grad()
    def before_saving(self, step: int) -> None:
        """Verify the state after ``step`` steps; raises Corrupted on every rank if something is wrong."""
        if self.every and self.verified != step:
            self.engine.gatherer.join()
            self.ledger.begin()
            self._compare_held(step - 1)
            self._verify(step - 1, torch.zeros_like(self._weights()))

    def _verify(self, number: int, in_use: Tensor) -> None:
        """Compare what was collected up to and with step ``number`` (from 0)."""
        self._note(3, self._not_encoded(), number)
        changed = self.ledger.compare(self._exchange)
        own = torch.stack([*in_use, *self._weights(), *self._shared_state(), torch.zeros_like(in_use[0])])
        own[-1] = (self._bad > 0).sum() + len(changed)
        table = own.new_empty(self.groups.world.size(), len(own))
        transport = self.engine.transport
        transport.wait(transport.all_gather(table.view(-1), own, self.groups.world))
        numbers = table.cpu().numpy()
        odd = copies.odd_ones(numbers[:, :-1], self._keys)
        if odd or numbers[:, -1].any():
            own_findings = Finding.of(odd, changed, self._local(), self.groups.rank)
            raise corrupted(number + 1, self._share(own_findings))
        self.verified = number + 1

    def _exchange(self, received: Tensor, rows: Tensor, group: Group) -> None:
        transport = self.engine.transport
        transport.wait(transport.exchange(received, rows, group))

    def _shared_state(self) -> Iterator[Tensor]:
        """The checksums of what other ranks hold too, in the order of the table's columns."""
        groups, ledger = self.groups, self.ledger
        yield from self._state().flatten()
        yield self._part(self._shared, groups.tensor)
        yield ledger.results(groups.tensor)
        yield self._part(lambda parameter: parameter.shared, groups.embedding)
        yield ledger.results(groups.embedding)
        yield ledger.results(groups.world)

    def _state(self) -> Tensor:
        """Checksums of masters, first and second moments, int64 [2, 3]: of experts in the second row."""
        found = []
        for units, moments in zip(self._parts, self.optimizer.moments_of_parts, strict=True):
            masters = [unit.master for unit in units]
            found.append(
                torch.stack([self._digest(tensors) for tensors in (masters, *([m] for m in moments))])
            )
        return torch.stack(found)

    def _weights(self) -> Tensor:
        """Checksums of working weights, int64 [2]: of experts in the second place."""
        return torch.stack([self._digest([unit.rows for unit in units]) for units in self._parts])

    def _digest(self, tensors: list[Tensor]) -> Tensor:
        if not sum(tensor.numel() for tensor in tensors):
            return torch.zeros((), dtype=torch.int64, device=self.engine.device)
        return digest(tensors)

    def _part(self, wanted: Any, group: Any) -> Tensor:
        """The checksum of masters and moments of ``wanted`` parameters; zero if ``group`` is this rank."""
        tensors = [
            tensor[run]
            for unit, moments in zip(self.engine.units, self.optimizer.moments, strict=True)
            for run in unit.runs(wanted)
            for tensor in (unit.master, *moments)
        ]
        if group.size() == 1 or not tensors:
            return torch.zeros((), dtype=torch.int64, device=self.engine.device)
        return digest(tensors)

    def _not_encoded(self) -> Tensor:
        """Whether a working row differs from what its master encodes to."""
        differs = torch.zeros((), dtype=torch.bool, device=self.engine.device)
        for unit in self.engine.units:
            if not unit.master_in_rows:
                differs |= (unit.wire.encode(unit.master.view(1, -1)) != unit.own_row).any()
        return differs

    def _compare_held(self, number: int) -> None:
        if self._held is not None:
            self._note(slice(3), (self._state() != self._held).any(0), number)

    def _note(self, where: int | slice, wrong: Tensor, number: int) -> None:
        """Keep the first step (from 1) at which a local check failed."""
        self._bad[where] = torch.where((self._bad[where] == 0) & wrong, number + 1, self._bad[where])

    def _local(self) -> list[tuple[str, int]]:
        return [(what, step) for what, step in zip(_LOCAL, self._bad.tolist(), strict=True) if step]

    def _share(self, own: list[Finding]) -> list[Finding]:
        """The findings of all ranks, each once, with where the ranks run. Collective."""
        place = f"{socket.gethostname()} ({self.engine.device})", own
        said: list[Any] = [None] * self.groups.world.size()
        dist.all_gather_object(said, place)
        places = [where for where, _ in said]
        found = dict.fromkeys(finding for _, findings in said for finding in findings)
        return [finding.at(places) for finding in found]
