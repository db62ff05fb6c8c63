"""Watches what a rank does on virtual streams: who reads and writes which memory, and when the host waits.

The logic is that of ``torch.cuda._sanitizer``: an access to memory must happen after the last write, and a
write also after all reads since then. Two more rules hold for memory itself. Who allocates it gets it as its
own stream left it, so others must come after. It may be freed only when its stream comes after all use on
others, unless they borrowed it (``record_stream``).
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from frontrunner.parallelism import runtime
from frontrunner.parallelism.runtime.wire import block_quantize, formats
from support.virtual_streams import MAIN, VirtualEvent, VirtualStream, VirtualStreams

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
_HOME = str(Path(runtime.__file__).parent) if runtime.__file__ else "runtime"


class Effects(NamedTuple):
    """What an operator does with its arguments; ``view``: nothing with their content."""

    view: bool
    written: tuple[int | str, ...]


class Memory:
    """What is known of one storage."""

    def __init__(self, owner: str, time: int) -> None:
        self.allocated(owner, time)

    def allocated(self, owner: str, time: int) -> None:
        self.owner = owner
        self.last_write = (owner, time)
        self.reads: dict[str, int] = {}
        self.uses: dict[str, int] = {}
        self.borrowers: set[str] = set()
        self.gone = False


class Watch(TorchDispatchMode):
    """Checks (with clocks) or delays (with queues) what happens while it is entered.

    ``races`` has one line for each kind of race, ``host_waits`` counts what the host waited for, by place.
    """

    def __init__(self, streams: VirtualStreams) -> None:
        super().__init__()
        self.streams = streams
        self.races: dict[str, int] = {}
        self.host_waits: Counter[str] = Counter()
        self._memory: dict[int, Memory] = {}
        self._dying: dict[int, weakref.ref[Any]] = {}
        self._patches = ExitStack()
        streams.borrowed = self._borrowed
        streams.waited = self._host_waited

    def __enter__(self) -> Watch:
        for name, (written, read) in COLLECTIVES.items():
            real = getattr(dist.ProcessGroup, name, None)
            if real is not None:
                self._patches.enter_context(
                    patch.object(dist.ProcessGroup, name, self._collective(name, real, written, read))
                )
        resize = torch.UntypedStorage.resize_
        self._patches.enter_context(
            patch.object(
                torch.UntypedStorage, "resize_", lambda storage, size: self._resize(resize, storage, size)
            )
        )
        for name in ("tolist", "cpu", "numpy"):
            real = getattr(torch.Tensor, name)
            self._patches.enter_context(patch.object(torch.Tensor, name, self._waiting(name, real)))
        self._patches.enter_context(patch.object(formats, "_path", lambda tensor: _Kernels(self)))
        super().__enter__()
        return self

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
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
        written = [
            kwargs[i] if isinstance(i, str) else args[i] for i in effects.written if _given(i, args, kwargs)
        ]
        if self.streams.late and self.streams.on is not self.streams.main:
            return self._later(func, args, kwargs, written)
        out = func(*args, **kwargs)
        if not self.streams.late:
            self._access(name, _tensors([args, kwargs]), _tensors(written), _tensors(out))
        return out

    def kernel(self, name: str, real: Callable[..., Any], args: Any, written: Any, read: Any) -> None:
        """One operation that the dispatcher does not see."""

        def run() -> None:
            with _disable_current_modes():
                real(*args)

        writes, reads = (_tensors([args[i] for i in which]) for which in (written, read))
        if self.streams.late and self.streams.on is not self.streams.main:
            self.streams.on.queue.append(lambda: self._run_late(name, run, [*writes, *reads]))
            return
        run()
        if not self.streams.late:
            self._access(name, reads, writes, [])

    # Late queues

    def _later(self, func: Any, args: Any, kwargs: Any, written: list[Any]) -> Any:
        """Queue an operator; what it returns is not a number until it has run."""
        name, queue, used = func._schema.name, self.streams.on.queue, _tensors([args, kwargs])
        if written:
            queue.append(lambda: self._run_late(name, lambda: func(*args, **kwargs), used))
            return (
                written[0]
                if len(func._schema.returns) == 1
                else tuple(written)
                if func._schema.returns
                else None
            )
        out = func(*args, **kwargs)
        inputs = {_storage(tensor)._cdata for tensor in used}
        made = [tensor for tensor in _tensors(out) if _storage(tensor)._cdata not in inputs]
        if not made:
            return out  # a view

        def run() -> None:
            for tensor, value in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                tensor.copy_(value)

        for tensor in made:
            _spoil(tensor)
        if not name.startswith("aten::empty") and not name.startswith("aten::new_empty"):
            queue.append(lambda: self._run_late(name, run, used))
        return out

    def _run_late(self, name: str, run: Callable[[], object], used: list[torch.Tensor]) -> None:
        for tensor in used:
            end = (tensor.storage_offset() + tensor.numel()) * tensor.element_size()
            if tensor.numel() and tensor.is_contiguous() and _storage(tensor).nbytes() < end:
                self._race(f"{name} runs on memory that was freed")
                return
        with _disable_current_modes(), torch.no_grad(), _below_versions():
            run()

    # Clocks

    def _access(self, name: str, used: list[Any], written: list[Any], out: list[Any], on: Any = None) -> None:
        stream: VirtualStream = on or self.streams.on
        time = self.streams.tick(stream)
        writes = {_storage(tensor)._cdata for tensor in written}
        for tensor in used:
            if tensor.numel() and _storage(tensor)._cdata not in writes:
                self._check(name, self._known(tensor), tensor, stream, time, write=False)
        for tensor in written:
            self._check(name, self._known(tensor), tensor, stream, time, write=True)
        for tensor in out:
            if _storage(tensor)._cdata not in self._memory:
                self._known(tensor, stream.name, time)

    def _check(
        self, name: str, memory: Memory, tensor: Any, stream: VirtualStream, time: int, write: bool
    ) -> None:
        def before(other: str, when: int) -> bool:
            return other == stream.name or stream.clock.get(other, 0) >= when

        shape = tuple(tensor.shape)
        verb = "writes" if write else "reads"
        if memory.gone:
            self._race(f"{stream.name}: {name} {verb} {shape} which was freed")
        if not before(*memory.last_write):
            self._race(f"{stream.name}: {name} {verb} {shape} that {memory.last_write[0]} may still write")
        for other, when in memory.reads.items() if write else ():
            if not before(other, when):
                self._race(f"{stream.name}: {name} writes {shape} that {other} may still read")
        if write:
            memory.last_write, memory.reads = (stream.name, time), {}
        else:
            memory.reads[stream.name] = time
        memory.uses[stream.name] = time

    def _known(self, tensor: Any, owner: str = MAIN, time: int = 0) -> Memory:
        storage = _storage(tensor)
        key = storage._cdata
        if key not in self._memory:
            self._memory[key] = Memory(owner, time)
            self._dying[key] = weakref.ref(storage, lambda _, key=key: self._died(key))
        return self._memory[key]

    def _died(self, key: int) -> None:
        memory = self._memory.pop(key, None)
        self._dying.pop(key, None)
        if memory is not None:
            self._freed(memory)

    def _freed(self, memory: Memory) -> None:
        clock = self.streams.named(memory.owner).clock
        for user, when in memory.uses.items():
            late = user != memory.owner and clock.get(user, 0) < when
            if late and user not in memory.borrowers and self.streams.host.get(user, 0) < when:
                self._race(f"memory of {memory.owner} is freed while {user} may still use it")

    def _borrowed(self, tensor: torch.Tensor, name: str) -> None:
        if not self.streams.late:
            self._known(tensor).borrowers.add(name)

    def _resize(self, resize: Any, storage: Any, size: int) -> Any:
        memory = self._memory.get(storage._cdata)
        if memory is not None and size == 0:
            self._freed(memory)
            memory.gone = True
        result = resize(storage, size)
        if size and self.streams.late:
            with _disable_current_modes():
                torch.tensor([], dtype=torch.uint8).set_(storage).fill_(0xFF)  # NaN in every float type
        elif size and memory is not None:
            on = self.streams.on
            memory.allocated(on.name, self.streams.tick(on))
        return result

    # Collectives

    def _collective(self, name: str, real: Any, written: Any, read: Any) -> Callable[..., Any]:
        def call(group: Any, *args: Any, **kwargs: Any) -> Any:
            writes, reads = (_tensors([args[i] for i in which]) for which in (written, read))
            streams = self.streams
            if streams.late:
                if streams.on is streams.main:
                    return real(group, *args, **kwargs)
                start = lambda: real(group, *args, **kwargs).wait()  # noqa: E731
                streams.on.queue.append(lambda: self._run_late(name, start, [*writes, *reads]))
                return _Queued()
            peer = args[1:2] if name in ("send", "recv") else ()
            own = streams.named(" ".join(map(str, ("messages of", group.group_name, *peer))))
            # A library of collectives has a stream of its own for each group, which waits for the caller's.
            streams.tick(streams.on)
            own.clock.update({k: max(v, own.clock.get(k, 0)) for k, v in streams.on.clock.items()})
            self._access(name, reads, writes, [], own)
            return _Work(self, real(group, *args, **kwargs), own.record_event(), [*writes, *reads])

        return call

    # The host

    def _host_waited(self, what: str) -> None:
        self.host_waits[f"{what} in {_place()}"] += 1

    def _waiting(self, name: str, real: Any) -> Callable[..., Any]:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self._host_waited(name)
            self.streams.host_waits(self.streams.on)
            return real(tensor, *args, **kwargs)

        return call

    def _race(self, what: str) -> None:
        line = f"{what} (in {_place()})"
        self.races[line] = self.races.get(line, 0) + 1


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


def _given(index: int | str, args: Any, kwargs: Any) -> bool:
    return index in kwargs if isinstance(index, str) else index < len(args)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def _spoil(tensor: torch.Tensor) -> None:
    tensor.fill_(float("nan") if tensor.is_floating_point() else 85 if tensor.dtype != torch.bool else True)


def _below_versions() -> Any:
    """What runs late must not look to autograd like a change made now."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.ADInplaceOrView)
    return torch._C._ExcludeDispatchKeyGuard(keys)


def _place() -> str:
    """The innermost function of the runtime that is being run."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/parallelism/runtime/" in name:
            return f"{Path(name).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "megatron-core"
