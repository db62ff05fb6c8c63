"""The order of a device's work: streams, events, and copies between host and device.

This is the only module that uses torch's streams. Communication streams, trainer and checkpoints get a
:class:`Streams`, so that tests can put in one that looks for missing waits
(``tests/support/virtual_streams.py``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch


class Event(Protocol):
    """A point in a stream's work."""


class Stream(Protocol):
    """A queue of a device's work, with the methods of ``torch.cuda.Stream``."""

    def wait_stream(self, stream: Any) -> None:
        """Queue a wait for all that is queued on the other stream now."""

    def wait_event(self, event: Any) -> None:
        """Queue a wait for the event."""

    def record_event(self) -> Any:
        """An event after all that is queued now."""


class Streams(ABC):
    """The streams of one rank's device."""

    @abstractmethod
    def side(self, lane: str) -> Stream | None:
        """A new stream beside the one that computes; None if the device runs everything in program order.

        ``lane`` is its name in profiles.
        """

    @abstractmethod
    def current(self) -> Stream:
        """The stream on which operations are queued now. Only for devices that have side streams."""

    @abstractmethod
    def running_on(self, stream: Stream) -> AbstractContextManager[Any]:
        """A context in which ``stream`` is the current one."""

    @abstractmethod
    def borrow(self, tensor: torch.Tensor, stream: Stream) -> None:
        """Give the tensor's memory to others only after ``stream`` has done what is queued when it is freed.

        Memory belongs to the stream on which it was allocated; this is for use on another one.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Let the host wait for what is queued on the current stream; side streams go on."""

    @abstractmethod
    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        """Values of the host on the device; the host does not wait."""

    @abstractmethod
    def to_host(self, values: torch.Tensor) -> torch.Tensor:
        """A copy on the host, complete when this returns."""


class ProgramOrder(Streams):
    """A device that has finished each operation when it returns: the CPU."""

    def side(self, lane: str) -> Stream | None:
        return None

    def current(self) -> Stream:
        raise AssertionError("there are no streams")

    def running_on(self, stream: Stream) -> AbstractContextManager[Any]:
        raise AssertionError("there are no streams")

    def borrow(self, tensor: torch.Tensor, stream: Stream) -> None:
        raise AssertionError("there are no streams")

    def synchronize(self) -> None:
        """Nothing is queued."""

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def to_host(self, values: torch.Tensor) -> torch.Tensor:
        return values.detach().clone()


class CudaStreams(Streams):
    """The streams of a GPU, for CUDA and ROCm."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def side(self, lane: str) -> Stream | None:
        return torch.cuda.Stream(self.device)

    def current(self) -> Stream:
        return torch.cuda.current_stream(self.device)

    def running_on(self, stream: Stream) -> AbstractContextManager[Any]:
        assert isinstance(stream, torch.cuda.Stream)
        return torch.cuda.stream(stream)

    def borrow(self, tensor: torch.Tensor, stream: Stream) -> None:
        assert isinstance(stream, torch.cuda.Stream)
        tensor.record_stream(stream)

    def synchronize(self) -> None:
        torch.cuda.current_stream(self.device).synchronize()

    def to_device(self, values: torch.Tensor) -> torch.Tensor:
        # From pageable memory, the host would wait until the copy is done. The allocator of pinned memory
        # keeps the block until then.
        return values.pin_memory().to(self.device, non_blocking=True)

    def to_host(self, values: torch.Tensor) -> torch.Tensor:
        return values.detach().to("cpu", copy=True)


def streams_of(device: torch.device) -> Streams:
    """The streams of a device as torch has them."""
    return CudaStreams(device) if device.type == "cuda" else ProgramOrder()


@contextmanager
def races_raise() -> Iterator[None]:
    """On a GPU, torch's sanitizer raises inside this context at the first access that no wait orders.

    It sees what torch dispatches and what waits for what; kernels of others, such as Triton's, it does not.
    """
    from torch.cuda._sanitizer import CUDASanitizer  # importing it costs, and few need it

    sanitizer = CUDASanitizer()
    sanitizer.enable()
    try:
        yield
    finally:
        sanitizer.disable()
