"""In which order ranks issue collectives, and whether that order can leave them waiting for one another.

:class:`Recorder` keeps what one rank issues and waits for, below all that communicates: the engine,
megatron-core's layers and messages between stages, checkpoints. :func:`faults` puts their lists together:

- ranks of a communicator must issue its collectives in one order;
- there must be no cycle in the graph of what comes before what: a rank's calls come one after another, and a
  collective ends once every member has issued it.

With ``one_at_a_time``, a rank's next collective starts when the one before has ended, over all communicators.
That is the least that a device does: without a cycle there, no choice of streams and hardware queues makes a
cycle of waits, because they only drop edges of this graph.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple
from unittest.mock import patch

import torch.distributed as dist

from support.stream_memory import tensors_in
from support.stream_watch import COLLECTIVES


class Key(NamedTuple):
    """A collective as all its ranks name it: the ``number``-th of a communicator or of a pair's messages."""

    group: str
    ranks: tuple[int, ...]
    number: int


class Call(NamedTuple):
    """A rank issues a collective (``what`` says which, with its bytes), or waits for one (None)."""

    thread: bool  # whether a thread beside the trainer's does it
    key: Key
    what: tuple[str, int] | None


class Recorder:
    """Keeps ``calls`` while it is entered. With a ``seed``, collectives seem complete or not by chance."""

    def __init__(self, seed: int | None = None) -> None:
        self.calls: list[Call] = []
        self.chance = random.Random(seed) if seed is not None else None
        self._main = threading.get_ident()
        self._numbers: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self._patches = ExitStack()

    def __enter__(self) -> Recorder:
        for name in (*COLLECTIVES, "barrier"):
            if hasattr(dist.ProcessGroup, name):  # in this version of torch
                ours = partial(self._issue, name, getattr(dist.ProcessGroup, name))
                # A function, so that it becomes a method.
                method = lambda group, *args, ours=ours, **kwargs: ours(group, *args, **kwargs)  # noqa: E731
                self._patches.enter_context(patch.object(dist.ProcessGroup, name, method))
        return self

    def __exit__(self, *_: Any) -> None:
        self._patches.close()

    def note(self, key: Key, what: tuple[str, int] | None) -> None:
        self.calls.append(Call(threading.get_ident() != self._main, key, what))

    def _issue(self, name: str, real: Callable[..., Any], group: Any, *args: Any, **kwargs: Any) -> Any:
        members = dist.get_process_group_ranks(group)
        ranks = tuple(members)
        if name in ("send", "recv"):
            pair = (dist.get_rank(), members[args[1]])
            ranks = pair if name == "send" else pair[::-1]
        which = (group.group_name, ranks)
        key = Key(*which, self._numbers[which])
        self._numbers[which] += 1
        # Of rows that differ in number, each rank has its own.
        uneven = any(isinstance(sizes, (list, tuple)) and sizes for sizes in args[2:4])
        size = 0 if uneven else sum(tensor.nbytes for tensor in tensors_in(args[:2]))
        self.note(key, ("message" if name in ("send", "recv") else name, size))
        return _Work(self, real(group, *args, **kwargs), key)


class _Work:
    """A collective that was issued."""

    def __init__(self, recorder: Recorder, work: Any, key: Key) -> None:
        self._recorder, self._work, self._key = recorder, work, key

    def wait(self, *args: Any) -> Any:
        self._recorder.note(self._key, None)
        return self._work.wait(*args)

    def is_completed(self) -> bool:
        chance = self._recorder.chance
        if chance is not None:
            if chance.random() < 0.5:
                return False
            time.sleep(0.002 * chance.random())  # and then it may well be
        return bool(self._work.is_completed())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


def faults(ranks: list[list[Call]], one_at_a_time: bool) -> list[str]:
    """What is wrong with the ranks' calls; ``one_at_a_time`` is what a device does, otherwise the host's."""
    said: dict[Key, dict[int, tuple[str, int]]] = defaultdict(dict)
    for rank, calls in enumerate(ranks):
        for call in calls:
            if call.what is not None:
                said[call.key][rank] = call.what
    for key, whats in said.items():
        if set(whats) != set(key.ranks) or len(set(whats.values())) > 1:
            return [f"ranks issue other collectives as number {key.number} of {key.group}: {whats}"]
    try:
        TopologicalSorter(_before(ranks, one_at_a_time)).prepare()
    except CycleError as error:
        return [f"ranks wait for one another: {error.args[1]}"]
    return []


def _before(ranks: list[list[Call]], one_at_a_time: bool) -> dict[Any, set[Any]]:
    """For each call, and each collective's end, what comes before it."""
    before: dict[Any, set[Any]] = defaultdict(set)
    for rank, calls in enumerate(ranks):
        last: dict[bool, Any] = {}
        for number, call in enumerate(calls):
            place = (rank, number)
            if call.thread in last:
                before[place].add(last[call.thread])
            last[call.thread] = place
            if call.what is None:
                before[place].add(call.key)
                continue
            before[call.key].add(place)
            if one_at_a_time:
                last[call.thread] = (rank, number, "end")
                before[last[call.thread]] |= {place, call.key}
    return before
