"""Which device a rank has, and what it may take of its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from frontrunner.configs.errors import SpecError
from frontrunner.parallelism.runtime.device import select_device

TAKE = """
import torch
from frontrunner.parallelism.runtime.device import limit_memory

limit_memory(torch.device("cpu"), 200_000_000)
held = torch.zeros(100_000_000, dtype=torch.uint8)
try:
    torch.zeros(150_000_000, dtype=torch.uint8)
except RuntimeError as error:
    print(error)
del held
torch.zeros(150_000_000, dtype=torch.uint8)
"""

GAPS = """
from resource import getpagesize
import torch
from frontrunner.parallelism.runtime.device import release_free_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * getpagesize()

blocks = [torch.zeros(100_000, dtype=torch.uint8) for _ in range(1000)]
kept = blocks[::10]
del blocks
before = resident()
release_free_memory(torch.device("cpu"))
print(before - resident())
"""

HOLES = """
import torch
from frontrunner.parallelism.runtime.device import limit_memory

limit_memory(torch.device("cpu"), 100_000_000)
torch.zeros(8_000_000, dtype=torch.uint8)
blocks = [torch.zeros(2_000_000, dtype=torch.uint8) for _ in range(40)]
kept = blocks[::10]
del blocks
torch.zeros(60_000_000, dtype=torch.uint8)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a CPU process is Linux's")
def test_what_a_cpu_rank_gives_back_it_may_take_again() -> None:
    """80 MB of blocks are free again but for every tenth, between which glibc's heap would have holes."""
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a CPU process is Linux's")
def test_a_cpu_rank_is_held_to_its_memory() -> None:
    done = subprocess.run([sys.executable, "-c", TAKE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "can't allocate memory: you tried to allocate 150000000 bytes" in done.stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to")
def test_gaps_between_buffers_are_given_back() -> None:
    """90 MB are free again, in gaps of at most 1 MB that end with a block in use."""
    done = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, timeout=120)
    assert int(done.stdout) > 80_000_000, done.stderr


def test_no_gpu_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(SpecError, match="torch sees no GPU here"):
        select_device("cuda", 0)
