"""What becomes of collectives that fail, or arrive, beside the model's computing."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.runtime.comm_streams import CommStream
from frontrunner.parallelism.runtime.streams import ProgramOrder
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.trace_events import REDUCTION, WEIGHTS
from support.specs import run_spec


class Failed:
    """A collective as gloo leaves it when there is no memory for it: complete, and raising when awaited."""

    def is_completed(self) -> bool:
        return True

    def wait(self) -> None:
        raise RuntimeError("std::bad_alloc")


def test_a_failed_collective_is_not_taken_for_one_that_has_arrived() -> None:
    went_on = False

    def job() -> Generator[Any, None, None]:
        nonlocal went_on
        yield Failed()
        went_on = True

    transport: Any = SimpleNamespace(lane=None, lanes=[])
    stream = CommStream(transport, ProgramOrder(), WEIGHTS)
    stream.submit(job())
    with pytest.raises(RuntimeError, match="bad_alloc"):
        stream.advance()
    assert not went_on


class Arriving:
    """A collective that has arrived when it is asked for the third time."""

    def __init__(self, asked: int = 0) -> None:
        self.asked = asked

    def is_completed(self) -> bool:
        self.asked += 1
        return self.asked > 2

    def wait(self) -> None:
        assert self.asked > 2, "it would have been waited for while others could go on"


def test_other_jobs_go_on_while_one_is_waited_for() -> None:
    """A unit's way over the network continues while the next unit's weights are waited for."""
    transport = Transport(Layout.from_spec(run_spec()), 0)
    weights, gradients = (CommStream(transport, ProgramOrder(), lane) for lane in (WEIGHTS, REDUCTION))
    went_on = []

    def gather() -> Generator[Any, None, None]:
        yield Arriving()
        went_on.append("gathered")

    def reduce() -> Generator[Any, None, None]:
        yield Arriving(asked=1)
        went_on.append("exchanged")
        yield Arriving(asked=1)

    gradients.submit(reduce())
    weights.wait(weights.submit(gather()))
    assert went_on == ["exchanged", "gathered"]
