"""Watches what a rank does on virtual streams: who reads and writes which memory, and when the host waits.

Each operator passes a dispatch mode, which finds its reads and writes in its schema. Collectives and the
kernels of quantised wires do not pass it, and are stood in for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from frontrunner.parallelism.runtime.wire import block_quantize, formats
from support.stream_memory import Accesses, place, storage_of, tensors_in
from support.virtual_streams import VirtualEvent, VirtualStreams, join

#: Operators after which the host knows a value or a size of the device.
HOST_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim"}
#: Methods of a group's process group, and how many of the first arguments they write to and read from.
COLLECTIVES = {
    "allreduce": ((0,), (0,)),
    "broadcast": ((0,), (0,)),
    "all_gather_single": ((0,), (1,)),
    "_allgather_base": ((0,), (1,)),
    "reduce_scatter_single": ((0,), (1,)),
    "_reduce_scatter_base": ((0,), (1,)),
    "all_to_all_single": ((0,), (1,)),
    "alltoall_base": ((0,), (1,)),
    "allgather": ((0,), (1,)),
    "send": ((), (0,)),
    "recv": ((0,), ()),
}
KERNELS = {
    "quantize": ((1,), (0,)),
    "dequantize": ((1,), (0,)),
    "dequantize_sum": ((1,), (0,)),
    "sum_rows": ((1,), (0,)),
}


class Effects(NamedTuple):
    """What an operator does with its arguments; ``view``: nothing with their content."""

    view: bool
    written: tuple[int | str, ...]


class Watch(TorchDispatchMode):
    """Checks (with clocks) or delays (with queues) what happens while it is entered.

    ``host_waits`` counts what the host waited for, by place.
    """

    def __init__(self, streams: VirtualStreams) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.streams = streams
        self.memory = Accesses(streams)
        self.host_waits: Counter[str] = Counter()
        self._patches = ExitStack()
        streams.borrowed = self.memory.borrowed
        streams.waited = self._host_waited

    def __enter__(self) -> Watch:
        for name, (written, read) in COLLECTIVES.items():
            if hasattr(dist.ProcessGroup, name):  # in this version of torch
                self._replace(dist.ProcessGroup, name, partial(self._collective, name, written, read))
        self._replace(torch.UntypedStorage, "resize_", self._resize)
        for name in ("tolist", "cpu", "numpy"):
            self._replace(torch.Tensor, name, partial(self._host_reads, name))
        self._replace(torch.Tensor, "to", self._moves)
        self._patches.enter_context(patch.object(formats, "_path", lambda tensor: _Kernels(self)))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def _replace(self, owner: Any, name: str, ours: Callable[..., Any]) -> None:
        """Call ``ours(real, ...)`` for a method, but not in the thread that writes checkpoints."""
        real, thread = getattr(owner, name), threading.get_ident()

        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return real(*args, **kwargs)
            return ours(real, *args, **kwargs)

        self._patches.enter_context(patch.object(owner, name, call))

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        self._patches.close()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "c10d":
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name in HOST_WAITS:
            self._host_waited(name)
            self.streams.host_waits(self.streams.on)
        effects = _effects(func)
        if effects.view:
            return func(*args, **kwargs)
        given = (kwargs | dict(enumerate(args))).get
        written = [given(argument) for argument in effects.written]
        if self.streams.late and self.streams.on is not self.streams.main:
            return self._later(func, args, kwargs, written)
        out = func(*args, **kwargs)
        if not self.streams.late:
            self.memory.access(name, tensors_in([args, kwargs]), tensors_in(written), tensors_in(out))
        return out

    def kernel(self, name: str, real: Callable[..., Any], args: Any, written: Any, read: Any) -> None:
        """One operation that the dispatcher does not see."""

        def run() -> None:
            with _disable_current_modes():
                real(*args)

        writes, reads = (tensors_in([args[i] for i in which]) for which in (written, read))
        if self.streams.late and self.streams.on is not self.streams.main:
            self.streams.on.queue.append(lambda: self._run_late(name, run, [*writes, *reads]))
            return
        run()
        if not self.streams.late:
            self.memory.access(name, reads, writes, [])

    # Late queues

    def _later(self, func: Any, args: Any, kwargs: Any, written: list[Any]) -> Any:
        """Queue an operator; what it returns is not a number until it has run."""
        name, queue, used = func._schema.name, self.streams.on.queue, tensors_in([args, kwargs])
        if written:
            queue.append(lambda: self._run_late(name, lambda: func(*args, **kwargs), used))
            returned = tuple(written[: len(func._schema.returns)])
            return returned[0] if len(returned) == 1 else returned or None
        out = func(*args, **kwargs)
        inputs = {storage_of(tensor)._cdata for tensor in used}
        made = [tensor for tensor in tensors_in(out) if storage_of(tensor)._cdata not in inputs]
        if not made:
            return out  # a view

        def run() -> None:
            for tensor, value in zip(tensors_in(out), tensors_in(func(*args, **kwargs)), strict=True):
                tensor.copy_(value)

        for tensor in made:
            _spoil(tensor)
        if not name.startswith("aten::empty") and not name.startswith("aten::new_empty"):
            queue.append(lambda: self._run_late(name, run, used))
        return out

    def _run_late(self, name: str, run: Callable[[], object], used: list[torch.Tensor]) -> None:
        for tensor in used:
            steps = zip(tensor.shape, tensor.stride(), strict=True)
            last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in steps)
            if tensor.numel() and storage_of(tensor).nbytes() < (last + 1) * tensor.element_size():
                self.memory.race(f"{name} runs on memory that was freed")
                return
        with _disable_current_modes(), torch.no_grad(), _below_versions():
            run()

    def _resize(self, resize: Any, storage: torch.UntypedStorage, size: int) -> Any:
        if not self.streams.late:
            self.memory.resized(storage, size)
        result = resize(storage, size)
        if size and self.streams.late:
            with _disable_current_modes():
                torch.tensor([], dtype=torch.uint8).set_(storage).fill_(0xFF)  # NaN in every float type
        return result

    # Collectives

    def _collective(
        self, name: str, written: Any, read: Any, real: Any, group: Any, *args: Any, **kwargs: Any
    ) -> Any:
        writes, reads = (tensors_in([args[i] for i in which]) for which in (written, read))
        streams = self.streams
        if streams.late and streams.on is streams.main:
            return real(group, *args, **kwargs)
        if streams.late:

            def run() -> None:
                real(group, *args, **kwargs).wait()

            streams.on.queue.append(lambda: self._run_late(name, run, [*writes, *reads]))
            return _Queued()
        # A library of collectives has a stream of its own for each group, which waits for the caller's.
        peer = args[1:2] if name in ("send", "recv") else ()
        own = streams.named(" ".join(map(str, ("messages of", group.group_name, *peer))))
        streams.tick(streams.on)
        join(own.clock, streams.on.clock)
        self.memory.access(name, reads, writes, [], own)
        return _Work(self, real(group, *args, **kwargs), own.now(), [*writes, *reads])

    # The host

    def _host_waited(self, what: str) -> None:
        self.host_waits[f"{what} in {place()}"] += 1

    def _host_reads(self, name: str, real: Any, *args: Any, **kwargs: Any) -> Any:
        self._host_waited(name)
        self.streams.host_waits(self.streams.on)
        return real(*args, **kwargs)

    def _moves(self, real: Any, *args: Any, **kwargs: Any) -> Any:
        """A copy between host and device waits, unless :class:`Streams` makes it."""
        if "device" in kwargs or any(isinstance(argument, torch.device) for argument in args):
            self._host_waited("to")
        return real(*args, **kwargs)


class _Work:
    """A started collective, whose end the stream that waits for it joins; it holds its tensors until then."""

    def __init__(self, watch: Watch, work: Any, event: VirtualEvent, tensors: list[Any]) -> None:
        self._watch, self._work, self._event, self._tensors = watch, work, event, tensors

    def wait(self, *args: Any) -> Any:
        streams = self._watch.streams
        if streams.keeps("work", streams.on.name):
            streams.wait(streams.on, self._event)
        self._tensors = []
        return self._work.wait(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)


class _Queued:
    """A collective in a late queue, which is waited for by being next to it."""

    def wait(self) -> None:
        return None


class _Kernels:
    """:mod:`block_quantize`, each function as one operation: on a GPU it is one kernel."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def __getattr__(self, name: str) -> Callable[..., None]:
        written, read = KERNELS[name]
        return lambda *args: self.watch.kernel(name, getattr(block_quantize, name), args, written, read)


@cache
def _effects(func: Any) -> Effects:
    arguments = func._schema.arguments
    aliases = [a for a in arguments if a.alias_info is not None]
    written = tuple(
        a.name if a.kwarg_only else i
        for i, a in enumerate(arguments)
        if a.alias_info is not None and a.alias_info.is_write
    )
    return Effects(bool(aliases) and not written, written)


def _spoil(tensor: torch.Tensor) -> None:
    tensor.fill_(float("nan") if tensor.is_floating_point() else 85 if tensor.dtype != torch.bool else True)


def _below_versions() -> Any:
    """What runs late must not look to autograd like a change made now."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
    return torch._C._ExcludeDispatchKeyGuard(keys)
