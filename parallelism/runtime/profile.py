"""A measured trace of some steps on one rank: torch's profiler, in the form and names of the predicted one.

Computing is cut where the rank waits, so that gaps of the compute thread are waiting, as in a predicted one.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.trace_events import Trace
from frontrunner.run_folder import files


class Span(NamedTuple):
    """Seconds from ``start`` to ``end``."""

    start: float
    end: float


Spans = dict[tuple[str, str], list[Span]]  # by thread and part


class Profile:
    """Profiles the requested steps if this is the requested rank."""

    def __init__(
        self, request: ProfileRequest | None, spec: RunSpec, rank: int, run_dir: Path, device: torch.device
    ) -> None:
        self.request = request if request is not None and request.rank == rank else None
        self.spec, self.run_dir = spec, run_dir
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
        self._profiler = profile(activities=kinds) if self.request else None

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step ``number`` (from 1)."""
        request, profiler = self.request, self._profiler
        if request is None or profiler is None or not request.first <= number <= request.last:
            yield
            return
        if number == request.first:
            profiler.start()
            ranges.switch(True)
        try:
            with ranges.part(str(number), ranges.STEP):
                yield
        finally:
            if number == request.last:
                ranges.switch(False)
                profiler.stop()
                _write(profiler, request, self.spec, self.run_dir)


def _write(profiler: profile, request: ProfileRequest, spec: RunSpec, run_dir: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torch.json"
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8", errors="replace"))["traceEvents"]
    target = files.profile_file(run_dir, request.steps, request.rank)
    target.parent.mkdir(exist_ok=True)
    target.write_text(measured_trace(events, spec, request), encoding="utf-8")


def measured_trace(events: list[dict[str, Any]], spec: RunSpec, request: ProfileRequest) -> str:
    """The text of a trace file, from the events of torch's profiler."""
    layout = Layout.from_spec(spec)
    stage = layout.coordinates(request.rank).pipeline
    spans = _spans(events)
    steps = {part: found for (thread, part), found in spans.items() if thread == ranges.STEP}
    begin = min(span.start for found in steps.values() for span in found)
    waits = sorted(span for (thread, _), found in spans.items() if thread == ranges.WAITING for span in found)
    computing = _computing(spans, waits)
    trace = Trace()
    trace.process(stage, request.rank, f"steps {request.steps}, measured")
    for part, found in computing.items():
        for span in found:
            trace.slice(stage, names.COMPUTE, part, span.start - begin, span.end - begin)
    for thread in names.TRACKS[1:]:
        for part, span in _in_turn(spans, thread):
            trace.slice(stage, thread, part, span.start - begin, span.end - begin)
    count = len(steps)
    step_s = sum(_length(found) for found in steps.values()) / count
    parts = {part: _length(found) / count for part, found in computing.items()}
    for (thread, part), found in spans.items():
        if thread == ranges.WAITING:
            parts[f"waiting for {part}"] = _length(found) / count
    return trace.text(
        {
            "kind": "measured",
            "run": spec.name,
            "machine": spec.machine.name,
            "steps": request.steps,
            "step_time_s": step_s,
            "stages": [{"stage": stage, "rank": request.rank, "parts_s": parts}],
        }
    )


def _computing(spans: Spans, waits: list[Span]) -> dict[str, list[Span]]:
    """What the compute thread does; recomputation is no backward, and waiting is neither."""
    again = sorted(spans.get((names.COMPUTE, names.RECOMPUTE), []))
    found = {}
    for part in (names.FORWARD, names.RECOMPUTE, names.BACKWARD, names.OPTIMIZER):
        pieces = spans.get((names.COMPUTE, part), [])
        if part == names.BACKWARD:
            pieces = _without(pieces, again)
        found[part] = _without(pieces, waits)
    return found


def _without(spans: list[Span], cuts: list[Span]) -> list[Span]:
    """What of the spans lies in none of the ``cuts``."""
    found, cuts = [], sorted(cuts)
    first = 0
    for span in sorted(spans):
        start = span.start
        while first < len(cuts) and cuts[first].end <= start:
            first += 1
        for cut in cuts[first:]:
            if cut.start >= span.end:
                break
            if cut.start > start:
                found.append(Span(start, cut.start))
            start = max(start, cut.end)
        if start < span.end:
            found.append(Span(start, span.end))
    return found


def _in_turn(spans: Spans, thread: str) -> list[tuple[str, Span]]:
    """The messages of a lane, which carries one at a time: one that is issued earlier waits for its turn."""
    found, free = [], float("-inf")
    issued = [(span, part) for (lane, part), each in spans.items() if lane == thread for span in each]
    for span, part in sorted(issued):
        start = max(span.start, free)
        if span.end > start:
            found.append((part, Span(start, span.end)))
            free = span.end
    return found


def _length(spans: list[Span]) -> float:
    return sum(span.end - span.start for span in spans)


def _spans(events: list[dict[str, Any]]) -> Spans:
    """Our ranges on the host; on a GPU, the time of the kernels that were launched in them."""
    ours = [one for one in events if one.get("ph") == "X" and one["name"].startswith(ranges.PREFIX)]
    ours = [one for one in ours if one.get("cat") == "user_annotation"]
    kernels = [one for one in events if one.get("ph") == "X" and one.get("cat") == "kernel"]
    on_device = _of_kernels(ours, kernels, events) if kernels else {}
    found: Spans = defaultdict(list)
    for index, one in enumerate(ours):
        thread, _, part = one["name"].removeprefix(ranges.PREFIX).partition("/")
        span = Span(one["ts"] / 1e6, (one["ts"] + one["dur"]) / 1e6)
        if kernels and thread != ranges.STEP:
            if index not in on_device:  # the host's waiting is not the device's
                continue
            span = on_device[index]
        found[thread, part].append(span)
    return dict(found)


def _of_kernels(
    ours: list[dict[str, Any]], kernels: list[dict[str, Any]], events: list[dict[str, Any]]
) -> dict[int, Span]:
    """Each range's time on the device: from its first kernel to its last.

    A kernel belongs to the shortest range that holds its launch, on whatever thread: autograd launches a
    backward's kernels on a thread of its own, while the range is open on the main one.
    """
    launched = {
        one["args"]["correlation"]: one["ts"]
        for one in events
        if one.get("cat") in ("cuda_runtime", "cuda_driver") and "correlation" in one.get("args", {})
    }
    shortest = sorted(range(len(ours)), key=lambda index: float(ours[index]["dur"]))
    found: dict[int, Span] = {}
    for kernel in kernels:
        at = launched.get(kernel["args"].get("correlation"))
        if at is None:
            continue
        inside = (i for i in shortest if ours[i]["ts"] <= at <= ours[i]["ts"] + ours[i]["dur"])
        index = next(inside, None)
        if index is not None:
            start, end = kernel["ts"] / 1e6, (kernel["ts"] + kernel["dur"]) / 1e6
            before = found.get(index, Span(start, end))
            found[index] = Span(min(before.start, start), max(before.end, end))
    return found
