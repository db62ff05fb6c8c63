"""Work that goes on beside the model's computing: chains of collectives and what follows each.

A job is a generator that yields a collective's work and goes on once that is complete. A
:class:`CommStream` takes the jobs in order, so that every rank issues the collectives of a group in the same
order. On a GPU it is a CUDA stream, on which a job is queued at once. On CPU its collectives run on gloo's
threads, and its computing is done by whoever waits for it, or when a hook finds it complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import torch

from frontrunner.parallelism.runtime.transport import Transport

Job = Generator[Any, None, None]


class Handle:
    """One job on its way; ``done`` once its last line has run (on a GPU: has been queued)."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.work: Any = None
        self.done = False
        self.event: torch.cuda.Event | None = None


class CommStream:
    """A queue of jobs, first in first out, of which ``depth`` at most are on their way (None: any number).

    Whoever submits one more waits for the first (on a GPU, its stream does), which bounds what jobs hold.
    Jobs that submit others do so to a stream without depth: when a job goes on depends on timing, and ranks
    may wait for one another only at the same places of the program.
    """

    def __init__(self, transport: Transport, device: torch.device, depth: int | None = None) -> None:
        self.transport = transport
        self.depth = depth
        self.queue: deque[Handle] = deque()
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def submit(self, job: Job) -> Handle:
        """Start a job: its lines up to the first collective run now."""
        if self.depth is not None and len(self.queue) >= self.depth:
            self.wait(self.queue[0])
        handle = Handle(job)
        if self.stream is None:
            self._step(handle)
            if not handle.done:
                self.queue.append(handle)
            return handle
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            while not handle.done:
                self._step(handle)
                if handle.work is not None:
                    handle.work.wait()  # the stream waits, not the host
            handle.event = self.stream.record_event()
        if self.depth is not None:
            self.queue.append(handle)
        return handle

    def borrow(self, tensor: torch.Tensor) -> None:
        """Keep a tensor that was made outside alive until the stream has used it."""
        if self.stream is not None:
            tensor.record_stream(self.stream)

    def advance(self) -> None:
        """Do what can be done without waiting."""
        while self.stream is None and self.queue and self.queue[0].work.is_completed():
            self.queue[0].work.wait()  # a collective that failed is complete too, and raises here
            self._step(self.queue[0])

    def wait(self, handle: Handle) -> None:
        """Return when the job is done; on a GPU, make the current stream wait for it."""
        if handle.event is not None:
            torch.cuda.current_stream().wait_event(handle.event)
            while handle in self.queue:  # this one and all before it
                self.queue.popleft()
            return
        while not handle.done:
            self.transport.wait(self.queue[0].work)
            self._step(self.queue[0])

    def join(self) -> None:
        """Wait for every job."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)
            self.queue.clear()
        while self.queue:
            self.wait(self.queue[-1])

    def _step(self, handle: Handle) -> None:
        handle.work = next(handle.job, None)
        handle.done = handle.work is None
        if handle.done and self.queue and self.queue[0] is handle:
            self.queue.popleft()
