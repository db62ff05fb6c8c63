"""Communication that overlaps the model's computing: chains of collectives and the work after each.

A job is a generator: it yields a collective's work and continues once that is complete. A :class:`CommStream`
takes jobs in order, so every rank issues the collectives of a group in the same order. On a GPU it is a CUDA
stream, and a job is queued on it at once. On CPU the collectives run on gloo's threads; the job's computing
is done by whoever waits for it, or by a hook that finds the collective complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import torch

from frontrunner.parallelism.runtime.streams import Event, Streams
from frontrunner.parallelism.runtime.transport import Transport

Job = Generator[Any, None, None]


class Handle:
    """One submitted job; ``done`` once its last line has run (on a GPU: has been queued)."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.work: Any = None
        self.done = False
        self.event: Event | None = None


class CommStream:
    """A first-in, first-out queue of jobs with at most ``depth`` in flight (None: no limit).

    ``lane`` is what a profile calls it (:data:`frontrunner.parallelism.trace_events.LANES`).

    Submitting one more waits for the first (on a GPU, the stream waits), which bounds what jobs hold. A job
    may only submit others to a stream without depth: the moment a job continues depends on timing, but ranks
    may wait for one another only at the same points of the program.

    On a GPU a job starts once those before it are done. On CPU it starts at once, unless ``one_at_a_time``:
    this is for jobs that use one communicator twice, whose collectives need one order on all ranks.
    """

    def __init__(
        self,
        transport: Transport,
        streams: Streams,
        lane: str,
        depth: int | None = None,
        one_at_a_time: bool = False,
    ) -> None:
        self.transport = transport
        self.streams = streams
        self.lane = lane
        self.depth = depth
        self.one_at_a_time = one_at_a_time
        self.queue: deque[Handle] = deque()
        self.stream = streams.side(lane)
        transport.lanes.append(self)

    def submit(self, job: Job) -> Handle:
        """Start a job: it runs up to its first collective now."""
        if self.depth is not None and len(self.queue) >= self.depth:
            self.wait(self.queue[0])
        handle = Handle(job)
        if self.stream is None:
            if self.one_at_a_time and self.queue:
                self.queue.append(handle)
                return handle
            self._step(handle)
            if not handle.done:
                self.queue.append(handle)
            return handle
        self.stream.wait_stream(self.streams.current())
        with self.streams.running_on(self.stream):
            while not handle.done:
                self._step(handle)
                if handle.work is not None:
                    handle.work.wait()  # the stream waits, not the host
            handle.event = self.stream.record_event()
        if self.depth is not None:
            self.queue.append(handle)
        return handle

    def borrow(self, tensor: torch.Tensor) -> None:
        """Keep a tensor from outside alive until the stream has used it."""
        if self.stream is not None:
            self.streams.borrow(tensor, self.stream)

    def advance(self) -> None:
        """Advance jobs as far as possible without waiting."""
        while self.stream is None and self.queue and self.queue[0].work.is_completed():
            self.queue[0].work.wait()  # a failed collective also counts as complete, and raises here
            self._step(self.queue[0])

    def wait(self, handle: Handle) -> None:
        """Return when the job is done; on a GPU, make the current stream wait for it."""
        if handle.event is not None:
            self.streams.current().wait_event(handle.event)
            while handle in self.queue:  # this job and all before it
                self.queue.popleft()
            return
        while not handle.done:
            self.transport.lane = self.lane
            self.transport.wait(self.queue[0].work, self._advance_others)
            self._step(self.queue[0])

    def join(self) -> None:
        """Wait for every job."""
        if self.stream is not None:
            self.streams.current().wait_stream(self.stream)
            self.queue.clear()
        while self.queue:
            self.wait(self.queue[-1])

    def _advance_others(self) -> bool:
        """Continue jobs of other streams: on CPU nobody else does. False: none is left."""
        others = [lane for lane in self.transport.lanes if lane is not self]
        for lane in others:
            lane.advance()
        return any(lane.queue for lane in others)

    def _step(self, handle: Handle) -> None:
        self.transport.lane = self.lane
        handle.work = next(handle.job, None)
        handle.done = handle.work is None
        if handle.done and self.queue and self.queue[0] is handle:
            self.queue.popleft()
            if self.queue and self.queue[0].work is None:
                self._step(self.queue[0])
