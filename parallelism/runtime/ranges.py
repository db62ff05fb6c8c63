"""Names for what a rank does, seen by torch's profiler while a profile is made, and free at other times.

The profiler is the process's, so the switch is too. A range is named ``frontrunner/thread/part``; see
:mod:`frontrunner.parallelism.trace_events` for both words.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.profiler import record_function

from frontrunner.parallelism import trace_events as names

PREFIX = "frontrunner/"
#: Not shown: computing is cut where it lies inside one.
WAITING = "waiting"
#: One whole step.
STEP = "step"

_NOTHING = nullcontext()
_switch = {"on": False}


def switch(on: bool) -> None:
    """Make ranges from now on, or no more."""
    _switch["on"] = on


def on() -> bool:
    return _switch["on"]


def part(name: str, thread: str = names.COMPUTE) -> AbstractContextManager[Any]:
    """A range around what happens in the context."""
    return record_function(f"{PREFIX}{thread}/{name}") if _switch["on"] else _NOTHING


def until_done(thread: str, name: str, start: Callable[[], Any], on_device: bool) -> Any:
    """Start a collective and return its work; the range ends when the collective does.

    On a GPU the profiler sees its kernels, and the range only says whose they are.
    """
    with record_function(f"{PREFIX}{thread}/{name}") as span:
        work = start()
        if work is not None and not on_device:
            span._call_end_callbacks_on_future(work.get_future())
        return work
