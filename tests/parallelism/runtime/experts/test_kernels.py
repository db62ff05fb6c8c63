"""The grouped product without a device: on CPU, in Triton's interpreter, and as each device would run it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which the extra `test` brings")

from triton.backends.compiler import GPUTarget

from frontrunner.parallelism.runtime.experts import kernels
from frontrunner.parallelism.runtime.experts.grouped import grouped_linear
from frontrunner.parallelism.runtime.wire.assembly import DTYPES, TARGETS, compile_function

INTERPRETED = Path(__file__).with_name("interpreted_kernels.py")
MACHINES = TARGETS | {"gfx942": GPUTarget("hip", "gfx942", 64)}
KERNELS: dict[str, tuple[Any, tuple[str, ...], dict[str, bool]]] = {
    "forward": (kernels.rows_kernel, ("x", "weight", "out"), {"TRANSPOSED": False}),
    "gradient of x": (kernels.rows_kernel, ("x", "weight", "out"), {"TRANSPOSED": True}),
    "gradient of weight": (kernels.weight_kernel, ("gradient", "x", "out"), {}),
}


def test_the_interpreted_kernels_are_right(tmp_path: Path) -> None:
    pytest_here = str(Path(sys.executable).with_name("pytest"))
    command = [pytest_here, "-q", "-p", "no:cacheprovider", str(INTERPRETED)]
    env = os.environ | {"TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^24 passed", ended.stdout, re.MULTILINE), ended.stdout


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", MACHINES)
@pytest.mark.parametrize("name", KERNELS)
def test_matrix_units_are_used_and_nothing_spills(
    name: str, target: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loads move 16 bytes a thread; H100 copies them past the registers, where none is counted."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    function, tensors, options = KERNELS[name]
    pointers = dict.fromkeys(tensors, DTYPES[dtype]) | {"starts": "i32"}
    assembly = compile_function(
        function, pointers, kernels.OPTIONS | options | {"ALIGN": 8}, MACHINES[target]
    )
    assert (assembly.spilled_registers, assembly.scratch_bytes) == (0, 0)
    assert assembly.registers <= 168
    nvidia = MACHINES[target].backend == "cuda"
    used = len(re.findall(r"\bwgmma\.mma_async|\bmma\.sync" if nvidia else r"\bv_mfma_f32", assembly.text))
    assert (used > 0) == (dtype != "float32" or not nvidia)  # H100's have no float32 products
    wide = re.findall(r"cp\.async\.\w+\.shared\.global\b.*, (?:0x10|16)\b", assembly.text)
    assert wide if nvidia else assembly.loads[16] == sum(assembly.loads.values()) > 0
    if nvidia:
        assert assembly.loads <= Counter({4: 3})  # where an expert's rows begin


def test_gradients_on_cpu() -> None:
    counts = [3, 0, 2]
    starts = torch.tensor([0, 3, 3, 5], dtype=torch.int32)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: grouped_linear(x, w, counts, starts), (x, weight))
