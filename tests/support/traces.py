"""Checks of Chrome trace events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from frontrunner.parallelism.trace_events import TRACKS

Event = dict[str, Any]


def slices(events: Iterable[Event], process: int, thread: str) -> list[Event]:
    """The complete events of one thread, in order of time."""
    tid = TRACKS.index(thread)
    found = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) == (process, tid)]
    return sorted(found, key=lambda e: (e["ts"], -e["dur"]))


def check_events(events: list[Event], nested: bool = False) -> None:
    """Events are complete, named, on named threads; slices of a thread do not overlap (``nested``: they may
    lie inside one another), and flows have two ends, each in a slice."""
    assert {e["ph"] for e in events} <= set("XMsf")
    threads = defaultdict(list)
    flows: dict[int, list[Event]] = defaultdict(list)
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    for event in events:
        assert {"name", "pid", "tid", "ts"} <= event.keys()
        place = (event["pid"], event["tid"])
        if event["ph"] == "X":
            assert event["dur"] > 0
            assert place in named
            threads[place].append((round(event["ts"] * 1000), round(event["dur"] * 1000)))
        elif event["ph"] in "sf":
            flows[event["id"]].append(event)
    for spans in threads.values():
        _check_thread(sorted(spans, key=lambda span: (span[0], -span[1])), nested)
    for ends in flows.values():
        assert [end["ph"] for end in ends] == ["s", "f"]
        for end in ends:
            at, spans = round(end["ts"] * 1000), threads[end["pid"], end["tid"]]
            assert any(start <= at < start + length for start, length in spans)


def _check_thread(spans: list[tuple[int, int]], nested: bool) -> None:
    open_until: list[int] = []
    for start, length in spans:
        while open_until and open_until[-1] <= start:
            open_until.pop()
        assert not open_until or (nested and start + length <= open_until[-1]), (start, length, open_until)
        open_until.append(start + length)


def uncovered(sent: list[Event], compute: list[Event]) -> float:
    """Seconds in which something is sent and nothing computed."""
    moments = [(e["ts"], 1, 0) for e in sent] + [(e["ts"] + e["dur"], -1, 0) for e in sent]
    moments += [(e["ts"], 0, 1) for e in compute] + [(e["ts"] + e["dur"], 0, -1) for e in compute]
    found, sending, computing, before = 0.0, 0, 0, 0.0
    for at, sends, computes in sorted(moments):
        if sending and not computing:
            found += at - before
        sending, computing, before = sending + sends, computing + computes, at
    return found / 1e6
