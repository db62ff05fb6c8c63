"""With what and on what the tests run, as pytest's report begins with it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from frontrunner.parallelism.versions import version

PACKAGES = ("torch", "megatron-core", "deepspeed", "numpy", "pydantic")
# What torch has kernels for, widest first, and the flags of /proc/cpuinfo that it asks for.
VECTORS = {
    "AVX512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "fma"},
    "AVX2": {"avx2", "fma"},
    "SVE": {"sve"},
    "NEON": {"asimd"},
}


def described() -> list[str]:
    """Lines for people: versions, then the processor."""
    packages = [f"{name} {version(name) or 'missing'}" for name in PACKAGES]
    cores = len(os.sched_getaffinity(0))
    return [
        ", ".join([f"Python {platform.python_version()}", *packages]),
        f"{processor(_cpuinfo())}, {cores} of {os.cpu_count()} cores",
    ]


def processor(cpuinfo: str) -> str:
    """Name and widest vector instructions, of the text of ``/proc/cpuinfo``.

    Results of sums depend on them: a failure elsewhere may be one of the processor there.
    """
    fields = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    name = fields.get("model name") or platform.machine()
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    widest = next((vector for vector, needed in VECTORS.items() if needed <= flags), "no vectors known")
    asked = os.environ.get("ATEN_CPU_CAPABILITY")
    return f"{name}, {widest}" + (f" (ATEN_CPU_CAPABILITY={asked})" if asked else "")


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
