"""Work that goes on beside the model's computing: chains of collectives and what follows each.

A job is a generator that yields a collective's work and goes on once that is complete. A lane takes the
jobs in order, so that every rank issues the collectives of a group in the same order. On a GPU a lane is
a stream, on which a job is queued at once; on CPU its collectives run on gloo's threads, and its
computing is done by whoever waits for it, or when a hook finds it complete.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import Any

import torch

from frontrunner.parallelism.runtime.transport import Transport

Job = Generator[Any, None, None]


class Ticket:
    """One job on its way; ``done`` once its last line has run (on a GPU: has been queued)."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.work: Any = None
        self.done = False
        self.event: torch.cuda.Event | None = None


class Lane:
    """A queue of jobs, first in first out, of which ``depth`` at most are on their way (None: any number).

    Whoever submits one more waits for the first (on a GPU, its stream does), which bounds what jobs hold.
    Jobs that submit others do so to a lane without depth: when a job goes on depends on timing, and ranks may
    wait for one another only at the same places of the program.
    """

    def __init__(self, transport: Transport, device: torch.device, depth: int | None = None) -> None:
        self.transport = transport
        self.depth = depth
        self.queue: deque[Ticket] = deque()
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def submit(self, job: Job) -> Ticket:
        """Start a job: its lines up to the first collective run now."""
        if self.depth is not None and len(self.queue) >= self.depth:
            self.wait(self.queue[0])
        ticket = Ticket(job)
        if self.stream is None:
            self._step(ticket)
            if not ticket.done:
                self.queue.append(ticket)
            return ticket
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            while not ticket.done:
                self._step(ticket)
                if ticket.work is not None:
                    ticket.work.wait()  # the stream waits, not the host
            ticket.event = self.stream.record_event()
        if self.depth is not None:
            self.queue.append(ticket)
        return ticket

    def borrow(self, tensor: torch.Tensor) -> None:
        """Keep a tensor that was made outside alive until the lane has used it."""
        if self.stream is not None:
            tensor.record_stream(self.stream)

    def advance(self) -> None:
        """Do what can be done without waiting."""
        while self.stream is None and self.queue and self.queue[0].work.is_completed():
            self.queue[0].work.wait()  # a collective that failed is complete too, and raises here
            self._step(self.queue[0])

    def wait(self, ticket: Ticket) -> None:
        """Return when the job is done; on a GPU, make the current stream wait for it."""
        if ticket.event is not None:
            torch.cuda.current_stream().wait_event(ticket.event)
            while ticket in self.queue:  # this one and all before it
                self.queue.popleft()
            return
        while not ticket.done:
            self.transport.wait(self.queue[0].work)
            self._step(self.queue[0])

    def join(self) -> None:
        """Wait for every job."""
        if self.stream is not None:
            torch.cuda.current_stream().wait_stream(self.stream)
            self.queue.clear()
        while self.queue:
            self.wait(self.queue[-1])

    def _step(self, ticket: Ticket) -> None:
        ticket.work = next(ticket.job, None)
        ticket.done = ticket.work is None
        if ticket.done and self.queue and self.queue[0] is ticket:
            self.queue.popleft()
