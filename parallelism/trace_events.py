"""Trace files that Perfetto and chrome://tracing open, and the names that predicted and measured ones share.

The format is the JSON object of "Trace Event Format" (Duan, Chrome): complete events (``X``), flows (``s``,
``f``) and names of processes and threads (``M``); ``ts`` and ``dur`` are microseconds.
"""

from __future__ import annotations

import json
from typing import Any

#: The thread of computing, and what runs on it.
COMPUTE = "compute"
FORWARD, RECOMPUTE, BACKWARD, OPTIMIZER = "forward", "recompute", "backward", "optimizer"
#: Waiting for the slowest rank, with which a predicted step ends.
STRAGGLERS = "stragglers"
#: What carries messages: between tensor ranks, tokens to experts and back, between stages, weights before
#: their use, gradients of each micro-batch, their reduction once per step, updated weights, and sums over
#: ranks (norms, losses).
TENSOR, EXPERTS, PIPELINE, WEIGHTS, GRADIENTS, REDUCTION, UPDATE, SUMS = LANES = (
    "tensor",
    "experts",
    "pipeline",
    "weights",
    "gradients",
    "reduction",
    "update",
    "sums",
)
#: What runs on the lanes. A reduce-scatter is an all-to-all whose receiver adds.
ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE, ALL_TO_ALL, SEND, RECEIVE = (
    "all-gather",
    "reduce-scatter",
    "all-reduce",
    "all-to-all",
    "send",
    "receive",
)
LEVELS = ("package", "node", "network")

_NS = 1e9


def track(lane: str, level: str) -> str:
    """The thread of one communication lane on one level of the machine."""
    return f"{lane} ({level})"


#: All threads, in the order in which they are shown; the index is the thread's id.
TRACKS = (COMPUTE, *(track(lane, level) for lane in LANES for level in LEVELS))


class Trace:
    """The events of one step or several; a process is a pipeline stage."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._threads: set[tuple[int, int]] = set()
        self._ends: dict[tuple[int, int], int] = {}
        self._flows = 0

    def process(self, stage: int, rank: int, label: str = "") -> None:
        """Name the process of a stage, which one rank stands for; ``label`` is shown beside it."""
        self._about(stage, 0, "process_name", {"name": f"stage {stage} (rank {rank})"})
        self._about(stage, 0, "process_sort_index", {"sort_index": stage})
        if label:
            self._about(stage, 0, "process_labels", {"labels": label})

    def slice(self, stage: int, thread: str, name: str, start_s: float, end_s: float, **args: object) -> None:
        """Something that took time; nothing if it took less than two nanoseconds."""
        start, end = round(start_s * _NS), round(end_s * _NS)
        if end - start < 2:
            return
        tid = self._thread(stage, thread)
        # Sums of seconds differ in their last digits, which must not make neighbours overlap.
        if start == self._ends.get((stage, tid), start) - 1:
            start += 1
        self._ends[stage, tid] = end
        found = {"ph": "X", "pid": stage, "tid": tid, "ts": start / 1000, "dur": (end - start) / 1000}
        self.events.append(found | {"name": name, "cat": thread, "args": args})

    def flow(self, name: str, sender: tuple[int, str, float], receiver: tuple[int, str, float]) -> None:
        """An arrow between two slices, by stage, thread, and a moment: the sender's end, the receiver's
        start."""
        for (stage, thread, at), phase, shift in ((sender, "s", -1), (receiver, "f", 0)):
            place = {"pid": stage, "tid": self._thread(stage, thread), "ts": (round(at * _NS) + shift) / 1000}
            found = {"ph": phase, "id": self._flows, "name": name, "cat": PIPELINE}
            self.events.append(found | place | ({"bp": "e"} if phase == "f" else {}))
        self._flows += 1

    def text(self, metadata: dict[str, object]) -> str:
        """The file."""
        found = {"traceEvents": self.events, "displayTimeUnit": "ms", "metadata": metadata}
        return json.dumps(found, separators=(",", ":")) + "\n"

    def _thread(self, stage: int, name: str) -> int:
        tid = TRACKS.index(name)
        if (stage, tid) not in self._threads:
            self._threads.add((stage, tid))
            self._about(stage, tid, "thread_name", {"name": name})
            self._about(stage, tid, "thread_sort_index", {"sort_index": tid})
        return tid

    def _about(self, stage: int, tid: int, name: str, args: dict[str, object]) -> None:
        self.events.append({"ph": "M", "pid": stage, "tid": tid, "ts": 0, "name": name, "args": args})
