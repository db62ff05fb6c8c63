"""Measures in about a minute what the nodes of a job can do, before a big run goes there."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import DTYPES, select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.streams import streams_of
from frontrunner.run_folder import files

_HANG_S = 90.0
_LINK_S = 0.4
_LEAST_BYTES, _MOST_BYTES = 64 * 1024, 256 * 2**20
_TRIES = 3


def probe(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Measure this rank's device and links; collective. Rank 0 writes ``run_dir/probe.json``.

    A rank that hangs ends its process and leaves a file in ``run_dir/hangs`` that says where.
    """
    layout = Layout.from_spec(spec)
    device = select_device(spec.machine.device.kind, rendezvous.local_rank)
    rank = rendezvous.rank

    @contextmanager
    def watched(what: str) -> Iterator[None]:
        timer = threading.Timer(_HANG_S, _report_hang, (run_dir, rank, what))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    with watched("making the layout's process groups"):
        groups = initialize(layout, rendezvous, device)
    # A communicator connects at its first use; the known hang is in the second one.
    group_s = {}
    for name in ("world", "tensor", "pipeline", "weights", "node_hop", "network_hop", "replicas"):
        group = getattr(groups, name)
        if group.size() > 1:
            with watched(f"the group {name}"):
                group_s[name] = _all_reduce_s(group, device)
    here: dict[str, Any] = {"rank": rank, "host": socket.gethostname(), "group_s": group_s}
    with watched("the barrier before the clocks"):
        dist.barrier()
        here["clock_s"] = time.time()
    here["gemm_flops_per_s"] = _gemm(device, DTYPES[spec.training.precision])
    here["memory_bytes_per_s"] = copy(device)
    here["free_memory_bytes"] = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    here["sent_bytes_per_s"] = {}
    for level in LEVELS:
        with watched(f"transfers at level {level}"):
            here["sent_bytes_per_s"][level] = _send(spec, layout, rank, level, device)
    found: list[Any] = [None] * layout.world_size
    dist.all_gather_object(found, here)
    if rank == 0:
        (run_dir / files.PROBE).write_text(json.dumps({"ranks": found}), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def partner(layout: Layout, rank: int, level: str) -> int | None:
    """The rank to send to: the counterpart in the next device, package or node; None if there is none."""
    inner, outer = _span(layout, level)
    if inner == outer:
        return None
    start = rank - rank % outer
    return start + (rank - start + inner) % outer


def _span(layout: Layout, level: str) -> tuple[int, int]:
    """Number of ranks in each part that a level links, and in the whole that holds these parts."""
    package, node = layout.devices_per_package, layout.devices_per_node
    return {"package": (1, package), "node": (package, node), "network": (node, layout.world_size)}[level]


def _send(spec: RunSpec, layout: Layout, rank: int, level: str, device: torch.device) -> list[float] | None:
    """Bytes/s that this rank sends at one level together with its counterparts, in each of three tries.

    Only every second package or node sends at a time. If both ends sent, the acknowledgements of a healthy
    link would queue behind the data of a slow one. Inside a package all devices send, as in training.
    """
    to = partner(layout, rank, level)
    if to is None:
        return None
    (source,) = (r for r in range(layout.world_size) if partner(layout, r, level) == rank)
    expected = getattr(spec.machine.links, level).bandwidth_bytes_per_s
    size = int(min(_MOST_BYTES, max(_LEAST_BYTES, expected * _LINK_S)))
    inner, _ = _span(layout, level)
    turns = 1 if level == "package" else 2
    rates = []
    for _ in range(_TRIES):
        for turn in range(turns):
            sends, receives = rank // inner % turns == turn, source // inner % turns == turn
            took_s = _transfer(size, to if sends else None, source if receives else None, device)
            if took_s is not None:
                rates.append(size / took_s)
    return rates


def _transfer(size: int, to: int | None, source: int | None, device: torch.device) -> float | None:
    """Send ``size`` bytes, receive as many, or both; return the seconds until the receiver had the data."""
    out, into = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    dist.barrier()
    streams_of(device).synchronize()
    begin = time.perf_counter()
    sending = [dist.P2POp(dist.isend, out, to)] if to is not None else []
    receiving = [dist.P2POp(dist.irecv, into, source)] if source is not None else []
    works = dist.batch_isend_irecv([*sending, *receiving]) if sending or receiving else []
    if works and source is not None:
        works[-1].wait()  # with gloo, only the reception
        streams_of(device).synchronize()
    # Use the sender's clock from before the first byte: the receiver may have started waiting late.
    word = torch.zeros(1, dtype=torch.uint8, device=device)
    answer = torch.zeros_like(word)
    telling = [dist.P2POp(dist.isend, word, source)] if source is not None else []
    hearing = [dist.P2POp(dist.irecv, answer, to)] if to is not None else []
    for work in dist.batch_isend_irecv([*telling, *hearing]) if telling or hearing else []:
        work.wait()
    streams_of(device).synchronize()
    took_s = time.perf_counter() - begin
    for work in works[:-1] if source is not None else works:
        work.wait()
    return took_s if to is not None else None


def _all_reduce_s(group: Any, device: torch.device) -> float:
    tensor = torch.ones(1024, device=device)
    dist.all_reduce(tensor, group=group)
    streams_of(device).synchronize()
    begin = time.perf_counter()
    dist.all_reduce(tensor, group=group)
    streams_of(device).synchronize()
    return time.perf_counter() - begin


def _gemm(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product, the best of three."""
    size = 8192 if device.type == "cuda" else 256
    a = torch.ones(size, size, dtype=dtype, device=device)
    return 2 * size**3 / best_s(lambda: a @ a, device)


def copy(device: torch.device) -> float:
    """Bytes/s that a copy reads and writes, the best of three."""
    count = 2**30 if device.type == "cuda" else 2**22
    a = torch.ones(count, dtype=torch.uint8, device=device)
    return 2 * count / best_s(a.clone, device)


def best_s(
    work: Callable[[], object], device: torch.device, before: Callable[[], object] = lambda: None
) -> float:
    """Seconds of the fastest of three calls, after one that does not count; ``before`` precedes each.

    What else runs on a node only makes calls slower.
    """
    times = []
    for _ in range(_TRIES + 1):
        before()
        streams_of(device).synchronize()
        begin = time.perf_counter()
        work()
        streams_of(device).synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def _report_hang(run_dir: Path, rank: int, what: str) -> None:
    folder = run_dir / files.HANGS
    folder.mkdir(exist_ok=True)
    text = json.dumps({"rank": rank, "host": socket.gethostname(), "what": what})
    (folder / f"rank-{rank}.json").write_text(text, encoding="utf-8")
    os._exit(1)
