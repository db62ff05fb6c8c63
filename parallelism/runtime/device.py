"""The device of a rank, and what megatron-core needs to run there.

ROCm is ``cuda`` in torch, so there are two kinds of device: ``cuda`` with nccl (RCCL), and ``cpu`` with gloo.
megatron-core is written for the first. Small substitutions (``megatron_inside``, ``random_state``) make its
model and schedules run on the second.
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import frontrunner.parallelism.runtime.quick_import  # noqa: F401  (before megatron-core)
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.sharding import Precision
from frontrunner.parallelism.placement import Place
from frontrunner.parallelism.runtime import megatron_inside

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 2**17  # mallopt(3); glibc's initial threshold


def select_device(kind: str, local_rank: int) -> torch.device:
    """The device of this rank. ``kind`` comes from the machine file: ``cuda``, ``cpu`` or ``auto``.

    If each rank sees one device (``--gpus-per-task=1``), the index is 0, whatever the local rank.
    Raises SpecError if torch sees no GPU.
    """
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        megatron_inside.use_cpu()
        return torch.device("cpu")
    if not (visible := torch.cuda.device_count()):
        fix = "run `frontrunner doctor`, or set it to cpu or auto"
        raise SpecError([Violation("machine.device.kind", kind, "torch sees no GPU here", fix)])
    device = torch.device("cuda", local_rank % visible)
    torch.cuda.set_device(device)
    return device


def limit_memory(device: torch.device, memory_bytes: int) -> None:
    """Limit this rank to ``memory_bytes`` from now on.

    On CPU this limits the further growth of the process's data (RLIMIT_DATA): memory of earlier imports and
    connections does not count, but stacks and buffers of later threads do. Freed tensors return to the system
    at once, since a fragmented heap would count otherwise; this makes ranks slower.
    """
    if device.type == "cuda":
        has = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory_bytes / has), device)
        return
    with suppress(AttributeError):  # glibc only: otherwise it raises the threshold whenever a block is freed
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
    status = Path("/proc/self/status").read_text()
    (held,) = (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def use_deterministic_kernels(device: torch.device) -> None:
    """Make operations bit-for-bit reproducible; torch raises if it has no deterministic kernel."""
    if device.type == "cuda":
        # cuBLAS is deterministic with a fixed workspace size, read at its first use; hipBLAS ignores it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def gather_places(device: torch.device, world_size: int) -> list[Place]:
    """Where each rank runs; collective over all ranks."""
    bus = None
    if device.type == "cuda":
        number = getattr(torch.cuda.get_device_properties(device), "pci_bus_id", None)
        bus = f"{number:02x}" if number is not None else None
    places: list[Any] = [None] * world_size
    dist.all_gather_object(places, Place(socket.gethostname(), bus, frozenset(os.sched_getaffinity(0))))
    return places


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: tensors on a GPU, the process's resident memory on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release_free_memory(device: torch.device) -> None:
    """On CPU, give what malloc keeps free back to the system.

    Communication allocates and frees a step's buffers in an order of its own, and glibc extends its heap
    rather than fill the gaps: ranks that need 360 MiB grew by 2 MiB a step.
    """
    if device.type == "cpu":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
