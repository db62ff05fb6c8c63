"""The Triton kernels without a device: in the interpreter, and as each device would run them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="needs Triton, which the extra `test` brings")

from frontrunner.parallelism.runtime.wire import block_quantize, kernels
from frontrunner.parallelism.runtime.wire.assembly import KERNELS, TARGETS, Assembly, Kernel, compile_kernel

INTERPRETED = Path(__file__).with_name("interpreted_kernels.py")
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
targets = pytest.mark.parametrize("target", TARGETS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel that was compiled before."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_the_interpreted_kernels_give_the_same_bits() -> None:
    pytest_here = str(Path(sys.executable).with_name("pytest"))
    command = [pytest_here, "-q", "-p", "no:cacheprovider", str(INTERPRETED)]
    env = os.environ | {"TRITON_INTERPRET": "1"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^\d{3} passed", ended.stdout, re.MULTILINE), ended.stdout


@pytest.mark.parametrize("name", ["quantize", "dequantize", "dequantize_sum", "sum_rows"])
def test_both_paths_are_called_alike(name: str) -> None:
    signatures = [inspect.signature(getattr(module, name)) for module in (kernels, block_quantize)]
    assert signatures[0] == signatures[1]


def expected(kernel: Kernel, target: str, block: int) -> tuple[int, int]:
    """Pieces of 16 bytes of a tile, for each thread: of the floats outside, and of the payload of one row."""
    warp_size = TARGETS[target].warp_size
    if kernel.operation == "sum":
        elements = kernels.sum_options(8, warp_size)["TILE"] // (4 * warp_size)
        return elements * 4 // 16, elements * ITEM_BYTES[kernel.wire] // 16
    options = kernels.block_options(int(kernel.wire[3:]), block, 8, warp_size)
    elements = options["BLOCKS"] * block // (options["num_warps"] * warp_size)
    return elements * ITEM_BYTES[kernel.dtype] // 16, elements * int(kernel.wire[3:]) // 8 // 16


def assert_wide(kernel: Kernel, assembly: Assembly, outside: int, payload: int) -> None:
    """All accesses move 16 bytes a thread but those of the scales, at most one for each of a payload."""
    loads, stores = assembly.loads, assembly.stores
    if kernel.operation == "quantize":
        assert (loads, stores) == (Counter({16: outside}), Counter({16: payload, 4: 1}))
    elif kernel.operation == "dequantize":
        assert (loads, stores) == (Counter({16: payload, 4: 1}), Counter({16: outside}))
    else:
        # The loop over rows may have several copies of its body.
        assert stores == Counter({16: outside})
        copies, rest = divmod(loads[16], payload)
        assert copies > 0
        assert rest == 0
        assert loads - Counter({16: loads[16]}) <= Counter({4: copies})


@targets
@pytest.mark.parametrize("kernel", KERNELS, ids=" ".join)
def test_accesses_are_wide_and_nothing_spills(kernel: Kernel, target: str) -> None:
    assembly = compile_kernel(kernel, target)
    assert_wide(kernel, assembly, *expected(kernel, target, 256))
    assert (assembly.spilled_registers, assembly.scratch_bytes) == (0, 0)
    assert assembly.registers <= 128
    assert_exact(kernel, assembly.text, expected(kernel, target, 256)[0] * 16 // ITEM_BYTES[kernel.dtype])


@targets
@pytest.mark.parametrize("block", [32, 2048])
@pytest.mark.parametrize("operation", ["quantize", "dequantize_sum"])
def test_so_it_is_with_other_blocks(operation: str, block: int, target: str) -> None:
    kernel = Kernel(operation, "int4", "float32")
    assembly = compile_kernel(kernel, target, block)
    assert_wide(kernel, assembly, *expected(kernel, target, block))
    assert (assembly.spilled_registers, assembly.scratch_bytes) == (0, 0)


def assert_exact(kernel: Kernel, text: str, elements: int) -> None:
    """All quotients are those of IEEE, nothing else is fused, denormals count and bfloat16 rounds to even."""
    quotients = elements + 1 if kernel.operation == "quantize" else 0  # and the scale
    if ".target sm_90" in text:
        assert len(re.findall(r"\bdiv\.rn\.f32", text)) >= quotients
        assert not re.search(r"\b(div\.(full|approx)|rcp|fma|mad)\.\w*f(32|16)|\.ftz", text)
        narrowed = "cvt.rn.bf16x2.f32"
    else:
        scales, fmas, fixups = (text.count(f"v_div_{step}_f32") for step in ("scale", "fmas", "fixup"))
        assert scales == 2 * fmas == 2 * fixups >= 2 * quotients
        assert quotients or "v_rcp" not in text
        assert quotients or not re.search(r"\bv_(pk_)?(fma|fmac|mad|mac)\w*_f(32|16)", text)
        assert re.search(r"float_denorm_mode_32 3\b", text)
        narrowed = "0x7fff"  # added with the last bit that stays
    if kernel.operation == "dequantize" and kernel.dtype == "bfloat16":
        assert narrowed in text


@targets
def test_what_may_begin_anywhere_is_read_element_by_element(target: str) -> None:
    """Shows that narrow accesses are seen where there are some."""
    assembly = compile_kernel(Kernel("quantize", "int8", "bfloat16"), target, align=1)
    assert assembly.loads == Counter({2: 16})
    assert assembly.stores == Counter({16: 1, 4: 1})
