"""A short test of each device's arithmetic and memory before a run begins.

Products of integer matrices are exact in every order of summation, so all devices must have the same bits,
whatever their kernels, and the product's sum is known from the factors' sums. Memory must keep a pattern and
its complement.
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist

from frontrunner.parallelism.runtime.integrity.checksums import digest
from frontrunner.run_folder.endings import RankFailed

_SIZE = 256  # of the matrices; sums stay below 2^24, up to which float32 has all integers
_LARGEST = 127
_REPEATS = 3
_MEMORY_BYTES = {"cuda": 1 << 28, "cpu": 1 << 24}
_PATTERN = 0x5555_5555_5555_5555


def run(device: torch.device) -> None:
    """Test this rank's device; raises RankFailed on every rank if one fails. Collective."""
    problem, result = problem_of(device)
    own = f"rank {dist.get_rank()} on {socket.gethostname()} ({device})", problem, result
    said: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(said, own)
    usual = Counter(result for _, _, result in said).most_common(1)[0][0]
    failed = [
        (rank, f"{place}: {problem or 'computes other products than most devices'}")
        for rank, (place, problem, result) in enumerate(said)
        if problem or result != usual
    ]
    if failed:
        rank = failed[0][0]
        text = "; ".join(message for _, message in failed[:4])
        more = f"; and {len(failed) - 4} more" if len(failed) > 4 else ""
        advice = "exclude it, or set watch.self_test: false to train with it"
        host = said[rank][0].split(" ")[3]
        raise RankFailed(f"the self-test of a device failed: {text}{more}; {advice}", rank, host)


def problem_of(device: torch.device) -> tuple[str | None, int]:
    """What is wrong with a device, or None, and the checksum of its products."""
    problems = [*_arithmetic(device), *_memory(device)]
    return (problems[0] if problems else None), _products(device)


def _factors(device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape, (low, high) = (2, _SIZE, _SIZE), (-_LARGEST, _LARGEST + 1)
    a, b = torch.randint(low, high, shape, generator=generator).to(device, dtype)
    return a, b


def _products(device: torch.device) -> int:
    results = [torch.matmul(*_factors(device, dtype)) for dtype in (torch.float32, torch.bfloat16)]
    return int(digest(results).item())


def _arithmetic(device: torch.device) -> Iterator[str]:
    a, b = _factors(device, torch.float32)
    first = torch.matmul(a, b)
    if any(not torch.equal(torch.matmul(a, b), first) for _ in range(_REPEATS)):
        yield "computes another product each time"
    columns, rows = a.to(torch.int64).sum(0), b.to(torch.int64).sum(1)
    if (columns * rows).sum() != first.to(torch.int64).sum():
        yield "computes a wrong product"


def _memory(device: torch.device) -> Iterator[str]:
    block = torch.empty(_MEMORY_BYTES[device.type] // 8, dtype=torch.int64, device=device)
    for pattern in (_PATTERN, ~_PATTERN):
        block.fill_(pattern)
        wrong = int((block != pattern).sum().item())
        if wrong:
            yield f"{wrong} of {block.numel()} words of memory do not keep what is written"
            return
