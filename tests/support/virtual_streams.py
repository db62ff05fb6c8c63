"""Streams of a GPU on CPU ranks: clocks that say what happens before what, and queues that run late.

A :class:`VirtualStreams` is what a trainer takes for a GPU's streams. It has two ways to find a missing wait.

*Clocks* (no ``seed``). Operations run at once, but each stream has a vector clock (Fidge 1988, Mattern
1988), which waits and events join, and :mod:`support.stream_memory` compares every access to memory with
those before.

*Late queues* (with a ``seed``). Operations on a side stream only run when the computing stream waits for
them, and other queues may be ahead of them, by chance. What is read too early is not a number.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from frontrunner.parallelism.runtime import comm_streams
from frontrunner.parallelism.runtime.streams import Streams

MAIN = "computing"
Clock = dict[str, int]


class Site(NamedTuple):
    """A place that orders work: ``method`` of the communication stream ``lane``, called by ``caller``."""

    what: str
    lane: str
    method: str
    caller: str


def join(clock: Clock, other: Clock) -> None:
    for name, time in other.items():
        if time > clock.get(name, 0):
            clock[name] = time


class VirtualEvent(NamedTuple):
    stream: VirtualStream
    clock: Clock
    position: int


class VirtualStream:
    """A queue of work. ``clock`` says what of each stream's work happens before what is queued next."""

    def __init__(self, owner: VirtualStreams, name: str) -> None:
        self.owner = owner
        self.name = name
        self.clock: Clock = {name: 0}
        self.queue: list[Callable[[], object]] = []
        self.done = 0  # how many of them have run

    def record_event(self) -> VirtualEvent:
        self.owner.recorded(self)
        return self.now()

    def now(self) -> VirtualEvent:
        return VirtualEvent(self, dict(self.clock), len(self.queue))

    def wait_stream(self, stream: VirtualStream) -> None:
        lane = stream.name if self.name == MAIN else self.name
        if self.owner.keeps("wait_stream", lane):
            self.owner.wait(self, stream.now())

    def wait_event(self, event: VirtualEvent) -> None:
        if self.owner.keeps("wait_event", event.stream.name):
            self.owner.wait(self, event)


class VirtualStreams(Streams):
    """``drop`` is a wait that is left out; ``sites`` are all that were there, that one too."""

    def __init__(self, seed: int | None = None, drop: Site | None = None) -> None:
        self.late = seed is not None
        self.chance = random.Random(seed)
        self.drop = drop
        self.sites: set[Site] = set()
        self.ahead: dict[str, int] = {}  # the most jobs of a lane that were queued and not waited for
        self._jobs: dict[str, list[int]] = {}
        self.host: Clock = {}
        self.main = VirtualStream(self, MAIN)
        self.streams: dict[str, VirtualStream] = {MAIN: self.main}
        self.on = self.main
        self.borrowed: Callable[[torch.Tensor, str], None] = lambda tensor, name: None
        self.waited: Callable[[str], None] = lambda what: None
        self._nested = False

    def side(self, lane: str) -> VirtualStream:
        # Experts have a second stream of one lane.
        count = sum(name.partition(" #")[0] == lane for name in self.streams)
        return self.named(f"{lane} #{count}" if count else lane)

    def named(self, name: str) -> VirtualStream:
        if name not in self.streams:
            self.streams[name] = VirtualStream(self, name)
        return self.streams[name]

    def current(self) -> VirtualStream:
        return self.on

    @contextmanager
    def running_on(self, stream: Any) -> Iterator[None]:
        before, self.on = self.on, stream
        try:
            yield
        finally:
            self.on = before

    def borrow(self, tensor: torch.Tensor, stream: Any) -> None:
        if self.keeps("borrow", stream.name):
            self.borrowed(tensor, stream.name)

    def synchronize(self) -> None:
        """Counted, and no more: a step must be right without the pauses in which it reads its clock."""
        self.waited("synchronize")

    def finish(self) -> None:
        """Run everything."""
        for stream in list(self.streams.values()):
            self.host_waits(stream)

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    def to_host(self, values: torch.Tensor) -> torch.Tensor:
        copy = values.detach().clone()
        self.waited("to_host")
        self.host_waits(self.on)
        return copy

    def host_waits(self, stream: VirtualStream) -> None:
        """What the host queues from now on comes after what is on the stream."""
        join(self.host, stream.clock)
        self._run(stream, len(stream.queue))

    def tick(self, stream: VirtualStream) -> int:
        """The time of the stream's next operation."""
        join(stream.clock, self.host)
        stream.clock[stream.name] += 1
        return stream.clock[stream.name]

    def wait(self, waiting: VirtualStream, event: VirtualEvent) -> None:
        join(waiting.clock, event.clock)
        if waiting is self.main:
            self._run(event.stream, event.position)
        elif event.stream is not self.main:  # which is never late
            waiting.queue.append(lambda: self._run(event.stream, event.position))

    def recorded(self, stream: VirtualStream) -> None:
        """Count a job whose end is an event."""
        jobs = self._jobs.setdefault(stream.name, [])
        jobs.append(stream.clock[stream.name])
        waited_for = self.main.clock.get(stream.name, 0)
        jobs[:] = [time for time in jobs if time > waited_for]
        self.ahead[stream.name] = max(self.ahead.get(stream.name, 0), len(jobs))

    def keeps(self, what: str, lane: str) -> bool:
        """Whether the engine's call that is being made counts; False for the one to drop."""
        site = _site(what, lane)
        if site is None:
            return True
        self.sites.add(site)
        return site != self.drop

    def _run(self, stream: VirtualStream, position: int) -> None:
        """Run the queue up to ``position``; now and then another queue's first work before it."""
        others = list(self.streams.values()) if not self._nested else []
        while stream.done < position:
            if others and self.chance.random() < 0.3:
                self._nested = True
                other = self.chance.choice(others)
                if other is not stream and other.done < len(other.queue):
                    self._next(other)
                self._nested = False
                continue
            self._next(stream)

    def _next(self, stream: VirtualStream) -> None:
        work = stream.queue[stream.done]
        nested, self._nested = self._nested, True
        work()
        self._nested = nested
        stream.queue[stream.done] = _nothing  # and what it holds is free
        stream.done += 1


def _nothing() -> None:
    return None


def _site(what: str, lane: str) -> Site | None:
    """Where in the engine this is called; None if it is not by a communication stream."""
    frame, method = sys._getframe(2), None
    while frame is not None:
        if frame.f_code.co_filename == comm_streams.__file__:
            method = method or frame.f_code.co_name
        elif method is not None:
            return Site(what, lane, method, frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None
