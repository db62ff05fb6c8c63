"""What the report of the tests says of the machine."""

from __future__ import annotations

import pytest

from support.machine import described, processor

ZEN = "model name : AMD EPYC 7A53\nflags : fpu fma avx2\n\nmodel name : AMD EPYC 7A53\nflags : fpu fma avx2\n"
ZEN_4 = "model name\t: AMD EPYC 9654\nflags\t\t: fma avx2 avx512f avx512bw avx512dq avx512vl\n"


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        (ZEN, "AMD EPYC 7A53, AVX2"),
        (ZEN_4, "AMD EPYC 9654, AVX512"),
        (ZEN_4.replace("avx512vl", ""), "AMD EPYC 9654, AVX2"),
        ("Features : fp asimd sve\n", ", SVE"),
        ("", ", no vectors known"),
    ],
)
def test_processor(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, said: str) -> None:
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert processor(cpuinfo).endswith(said)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert processor(cpuinfo).endswith(f"{said} (ATEN_CPU_CAPABILITY=default)")


def test_versions() -> None:
    versions, machine = described()
    assert all(f"{name} " in versions for name in ("Python", "torch", "megatron-core", "numpy", "pydantic"))
    assert machine.endswith(" cores")
