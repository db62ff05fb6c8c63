"""The collectives of a rank. Counts the bytes that it sends, by level, and the time that it waits.

The sender counts a byte. For a ring (gather, all-reduce) it counts on the level of the link to the next rank
of the group, for an exchange on the level of each destination.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist

from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.runtime.megatron_inside import Hops, tensor_parallel_collectives
from frontrunner.parallelism.runtime.process_groups import Group

if TYPE_CHECKING:
    from frontrunner.parallelism.runtime.integrity.ledger import Ledger

# megatron-core's layers call torch.distributed by name; keeping these avoids counting twice.
_all_gather = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)  # the name since torch 2.13
_reduce_scatter = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)
_all_reduce = dist.all_reduce
#: How often a rank looks what has arrived. Many ranks of a test share few cores.
_LOOK_EVERY_S = 0.005


class Lane(Protocol):
    """A queue of jobs that send something; :class:`CommStream` is one."""

    queue: deque[Any]
    stream: Any

    def advance(self) -> None:
        """Continue with what has arrived."""


class Transport:
    """Counted collectives. ``sent`` holds bytes by level, ``waited_s`` the seconds spent inside them.

    ``progress_s`` is when the rank last sent something or finished waiting (``time.monotonic``);
    ``waiting_for`` says what it waits for now; ``lane`` names whose messages are started, for a profile;
    ``lanes`` are the streams that send here. On a GPU, collectives return once they are queued, so
    ``waited_s`` only covers the host. ``ledger`` keeps checksums of messages while a step is verified.
    """

    def __init__(self, layout: Layout, rank: int) -> None:
        self.layout = layout
        self.rank = rank
        self.sent = dict.fromkeys(LEVELS, 0)
        self.waited_s = 0.0
        self.progress_s = time.monotonic()
        self.waiting_for: str | None = None
        self.lane = names.SUMS
        self.ledger: Ledger | None = None
        self.lanes: list[Lane] = []
        self._ranks: dict[Group, list[int]] = {}

    def all_gather(self, output: torch.Tensor, shard: torch.Tensor, group: Group) -> Any:
        """Start gathering ``output`` [n * len(shard)] from each rank's ``shard``, in the group's order."""
        self._count_ring(group, shard.nbytes * (group.size() - 1))

        def start() -> Any:
            return self._named(
                self.lane,
                names.ALL_GATHER,
                group,
                output,
                lambda: _all_gather(output, shard, group=group, async_op=True),
            )

        if self.ledger is None:
            return start()
        return self.ledger.gather(start, output, shard, group, self.lane)

    def exchange(self, received: torch.Tensor, chunks: torch.Tensor, group: Group) -> Any:
        """Start an all-to-all of [n, m] chunks: row i goes to the group's rank i, and i came from there."""
        for other in self._members(group):
            if other != self.rank:
                self.count_to(other, chunks[0].nbytes)

        def start() -> Any:
            return self._named(
                self.lane,
                names.REDUCE_SCATTER,
                group,
                chunks,
                lambda: dist.all_to_all_single(received, chunks, group=group, async_op=True),
            )

        return (
            start()
            if self.ledger is None
            else self.ledger.exchange(start, received, chunks, group, self.lane)
        )

    def exchange_rows(
        self, received: torch.Tensor, rows: torch.Tensor, came: list[int], went: list[int], group: Group
    ) -> None:
        """Send ``went[i]`` of the ``rows`` to the group's rank i, and wait for ``came[i]`` from it.

        Rows for one rank follow one another, in the order of ranks.
        """
        row_bytes = rows[0].nbytes if len(rows) else 0
        for other, count in zip(self._members(group), went, strict=True):
            if other != self.rank and count:
                self.count_to(other, count * row_bytes)

        def start() -> Any:
            return dist.all_to_all_single(received, rows, came, went, group=group, async_op=True)

        work = self._named(names.EXPERTS, names.ALL_TO_ALL, group, rows, start)
        with self.waiting("tokens of experts", names.EXPERTS):
            self._until(work, self._advance_lanes)

    def _advance_lanes(self) -> bool:
        """Continue jobs of lanes without a stream: on CPU nobody else does. False: none is left."""
        lanes = [lane for lane in self.lanes if lane.stream is None]
        for lane in lanes:
            lane.advance()
        return any(lane.queue for lane in lanes)

    def wait(self, work: Any, meanwhile: Callable[[], bool] | None = None) -> None:
        """Wait for a started collective; until it is complete, call ``meanwhile`` as long as that is true."""
        with self.waiting("sharded state", self.lane):
            self._until(work, meanwhile)

    @staticmethod
    def _until(work: Any, meanwhile: Callable[[], bool] | None) -> None:
        while meanwhile is not None and not work.is_completed() and meanwhile():
            time.sleep(_LOOK_EVERY_S)
        work.wait()

    def all_reduce(self, tensor: torch.Tensor, group: Group, op: Any = dist.ReduceOp.SUM) -> None:
        """Sum (or ``op``) over the group, in place."""
        size = group.size()
        self._count_ring(group, 2 * tensor.nbytes * (size - 1) // size)
        with self.waiting("a sum over ranks", names.SUMS):
            self._named(
                names.SUMS, names.ALL_REDUCE, group, tensor, lambda: _all_reduce(tensor, op=op, group=group)
            )
        if self.ledger is not None:
            self.ledger.result(tensor, group)

    def take(self) -> tuple[dict[str, int], float]:
        """Bytes by level, and seconds waited, since the last call."""
        taken = (self.sent, self.waited_s)
        self.sent, self.waited_s = dict.fromkeys(LEVELS, 0), 0.0
        return taken

    def count_to(self, other: int, nbytes: int) -> None:
        """Count the bytes sent to one other rank."""
        self.sent[self.layout.level_between(self.rank, other)] += nbytes
        self.progress_s = time.monotonic()

    @contextmanager
    def counting_tensor_parallel(self) -> Iterator[None]:
        """Inside this context, count what megatron-core's tensor-parallel layers and the loss send."""

        def counted_gather(output: torch.Tensor, shard: torch.Tensor, group: Group, **kwargs: Any) -> Any:
            self._count_ring(group, shard.nbytes * (group.size() - 1))
            with self.waiting("tensor ranks", names.TENSOR):
                return self._named(
                    names.TENSOR,
                    names.ALL_GATHER,
                    group,
                    shard,
                    lambda: _all_gather(output, shard, group=group, **kwargs),
                )

        def counted_scatter(output: torch.Tensor, whole: torch.Tensor, group: Group, **kwargs: Any) -> Any:
            self._count_ring(group, output.nbytes * (group.size() - 1))
            with self.waiting("tensor ranks", names.TENSOR):
                return self._named(
                    names.TENSOR,
                    names.REDUCE_SCATTER,
                    group,
                    whole,
                    lambda: _reduce_scatter(output, whole, group=group, **kwargs),
                )

        def counted_reduce(
            tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, group: Group = None, **kwargs: Any
        ) -> Any:
            self._count_ring(group, 2 * tensor.nbytes * (group.size() - 1) // group.size())
            with self.waiting("tensor ranks", names.TENSOR):
                return self._named(
                    names.TENSOR,
                    names.ALL_REDUCE,
                    group,
                    tensor,
                    lambda: _all_reduce(tensor, op=op, group=group, **kwargs),
                )

        with tensor_parallel_collectives(counted_gather, counted_scatter):
            dist.all_reduce = counted_reduce  # type: ignore[assignment]
            try:
                yield
            finally:
                dist.all_reduce = _all_reduce

    def _members(self, group: Group) -> list[int]:
        if group not in self._ranks:
            self._ranks[group] = dist.get_process_group_ranks(group)
        return self._ranks[group]

    def _count_ring(self, group: Group, nbytes: int) -> None:
        ranks = self._members(group)
        if len(ranks) > 1:
            self.count_to(ranks[(ranks.index(self.rank) + 1) % len(ranks)], nbytes)

    def _named(
        self, lane: str, name: str, group: Group, tensor: torch.Tensor, start: Callable[[], Any]
    ) -> Any:
        """What ``start`` returns, a collective's work or None; a profile has it from start to end."""
        if not ranges.on() or len(self._members(group)) == 1:
            return start()
        return ranges.until_done(names.track(lane, self._level(group)), name, start, tensor.is_cuda)

    def _level(self, group: Group) -> str:
        """The slowest level that a group's messages cross."""
        others = [rank for rank in self._members(group) if rank != self.rank]
        found = {self.layout.level_between(self.rank, other) for other in others}
        return max(found, key=LEVELS.index, default=LEVELS[0])

    @contextmanager
    def waiting(self, what: str, lane: str) -> Iterator[None]:
        """Count the time until the block ends as waiting for other ranks; ``lane`` is a profile's."""
        start = time.perf_counter()
        self.waiting_for = what
        try:
            with ranges.part(lane, ranges.WAITING):
                yield
        finally:
            self.waited_s += time.perf_counter() - start
            self.waiting_for = None
            self.progress_s = time.monotonic()


class CountedP2P(Hops):
    """megatron-core's messages between stages, counted."""

    def __init__(self, group: Group, config: Any, transport: Transport) -> None:
        super().__init__(group, config)
        self.transport = transport

    @contextmanager
    def around(self, to_next: Any, to_previous: Any, receives: bool) -> Iterator[None]:
        if to_next is not None:
            self.transport.count_to(self.next_rank, to_next.nbytes)
        if to_previous is not None:
            self.transport.count_to(self.prev_rank, to_previous.nbytes)
        name = names.RECEIVE if receives else names.SEND
        level = self.transport.layout.level_between(self.transport.rank, self.next_rank)
        lane = names.track(names.PIPELINE, level)
        with self.transport.waiting("another stage", names.PIPELINE), ranges.part(name, lane):
            yield
