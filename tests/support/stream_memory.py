"""Who reads and writes which memory on virtual streams, and whether that is in order.

The logic is that of ``torch.cuda._sanitizer``: an access to memory must happen after the last write, and a
write also after all reads since then. Two more rules hold for memory itself. Who allocates it gets it as its
own stream left it, so others must come after. It may be freed only when its stream comes after all use on
others, unless they borrowed it (``record_stream``).
"""

from __future__ import annotations

import sys
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from support.virtual_streams import MAIN, VirtualStream, VirtualStreams


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


class Accesses:
    """What was done to memory so far; ``races`` counts each kind of race."""

    def __init__(self, streams: VirtualStreams) -> None:
        self.streams = streams
        self.races: dict[str, int] = {}
        self._memory: dict[int, Memory] = {}
        self._dying: dict[int, weakref.ref[Any]] = {}

    def access(self, name: str, used: list[Any], written: list[Any], out: list[Any], on: Any = None) -> None:
        stream: VirtualStream = on or self.streams.on
        time = self.streams.tick(stream)
        writes = {storage_of(tensor)._cdata for tensor in written}
        for tensor in used:
            if self._counts(tensor) and storage_of(tensor)._cdata not in writes:
                self._check(name, self._known(tensor), tensor, stream, time, write=False)
        for tensor in written:
            self._check(name, self._known(tensor), tensor, stream, time, write=True)
        for tensor in out:
            if storage_of(tensor)._cdata not in self._memory:
                self._known(tensor, stream.name, time)

    def _counts(self, tensor: torch.Tensor) -> bool:
        """Not what is empty, nor a constant that torch has made of a Python number."""
        return tensor.numel() > 0 and (tensor.dim() > 0 or storage_of(tensor)._cdata in self._memory)

    def _check(
        self, name: str, memory: Memory, tensor: Any, stream: VirtualStream, time: int, write: bool
    ) -> None:
        def before(other: str, when: int) -> bool:
            return other == stream.name or stream.clock.get(other, 0) >= when

        shape = tuple(tensor.shape)
        verb = "writes" if write else "reads"
        if memory.gone:
            self.race(f"{stream.name}: {name} {verb} {shape} which was freed")
        if not before(*memory.last_write):
            self.race(f"{stream.name}: {name} {verb} {shape} that {memory.last_write[0]} may still write")
        for other, when in memory.reads.items() if write else ():
            if not before(other, when):
                self.race(f"{stream.name}: {name} writes {shape} that {other} may still read")
        if write:
            memory.last_write, memory.reads = (stream.name, time), {}
        else:
            memory.reads[stream.name] = time
        memory.uses[stream.name] = time

    def _known(self, tensor: Any, owner: str = MAIN, time: int = 0) -> Memory:
        storage = storage_of(tensor)
        key = storage._cdata
        if key not in self._memory:
            self._memory[key] = Memory(owner, time)
            self._dying[key] = weakref.ref(storage, partial(self._died, key))
        return self._memory[key]

    def _died(self, key: int, _: object) -> None:
        memory = self._memory.pop(key, None)
        self._dying.pop(key, None)
        if memory is not None:
            self._freed(memory)

    def _freed(self, memory: Memory) -> None:
        clock = self.streams.named(memory.owner).clock
        for user, when in memory.uses.items():
            late = user != memory.owner and clock.get(user, 0) < when
            if late and user not in memory.borrowers and self.streams.host.get(user, 0) < when:
                self.race(f"memory of {memory.owner} is freed while {user} may still use it")

    def borrowed(self, tensor: torch.Tensor, name: str) -> None:
        if not self.streams.late:
            self._known(tensor).borrowers.add(name)

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        """Before a storage is freed (to size 0) or allocated again on the current stream."""
        memory = self._memory.get(storage._cdata)
        if memory is None:
            return
        if size == 0:
            self._freed(memory)
            memory.gone = True
        else:
            on = self.streams.on
            memory.allocated(on.name, self.streams.tick(on))

    def race(self, what: str) -> None:
        line = f"{what} (in {place()})"
        self.races[line] = self.races.get(line, 0) + 1


def tensors_in(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def storage_of(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


def place() -> str:
    """The innermost function of the runtime that is being run."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/parallelism/runtime/" in name:
            return f"{Path(name).stem}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "megatron-core"
