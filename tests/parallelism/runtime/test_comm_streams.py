"""What becomes of collectives that fail beside the model's computing."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from frontrunner.parallelism.runtime.comm_streams import CommStream
from frontrunner.parallelism.runtime.streams import ProgramOrder
from frontrunner.parallelism.trace_events import WEIGHTS


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

    transport: Any = SimpleNamespace(lane=None)
    stream = CommStream(transport, ProgramOrder(), WEIGHTS)
    stream.submit(job())
    with pytest.raises(RuntimeError, match="bad_alloc"):
        stream.advance()
    assert not went_on
