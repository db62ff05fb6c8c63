"""Compiles the kernels for devices that may be absent, and reads the assembly."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from frontrunner.parallelism.runtime.wire import kernels

TARGETS = {"gfx90a": GPUTarget("hip", "gfx90a", 64), "sm_90": GPUTarget("cuda", 90, 32)}  # MI250X, H100
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}

_AMD_ACCESS = re.compile(r"^\s+(?:global|buffer|flat)_(load|store)_(\w+?)(?:_hi)?\s", re.MULTILINE)
_AMD_BYTES = {
    "dwordx4": 16,
    "dwordx3": 12,
    "dwordx2": 8,
    "dword": 4,
    "ushort": 2,
    "short": 2,
    "short_d16": 2,
    "ubyte": 1,
    "byte": 1,
}
_PTX_ACCESS = re.compile(r"\b(ld|st)\.global(?:\.[a-zA-Z]\w*(?:::\w+)?)*?(?:\.v(\d))?\.[bfsu](\d+)\s")


class Kernel(NamedTuple):
    """One of :mod:`kernels`: its operation, its wire format, and the float type on the other side."""

    operation: str
    wire: str
    dtype: str


KERNELS = (
    *(Kernel("quantize", wire, dtype) for wire in ("int8", "int4") for dtype in DTYPES),
    *(Kernel("dequantize", wire, dtype) for wire in ("int8", "int4") for dtype in DTYPES),
    *(Kernel("dequantize_sum", wire, "float32") for wire in ("int8", "int4")),
    *(Kernel("sum", wire, "float32") for wire in DTYPES),
)


@dataclass(frozen=True)
class Assembly:
    """``loads`` and ``stores`` count instructions on global memory by the bytes that each thread moves.

    ``registers`` are a thread's vector registers; ``scratch_bytes`` is what it spills to memory.
    """

    text: str
    loads: Counter[int]
    stores: Counter[int]
    registers: int
    scalar_registers: int
    spilled_registers: int
    scratch_bytes: int


def compile_kernel(kernel: Kernel, target: str, block: int = 256, align: int = 8) -> Assembly:
    """What a device of ``target`` runs, for tensors aligned to 16 bytes, like torch's."""
    machine = TARGETS[target]
    if kernel.operation == "sum":
        options = kernels.sum_options(align, machine.warp_size)
        pointers = {"values": DTYPES[kernel.wire], "out": "fp32"}
    else:
        options = kernels.block_options(int(kernel.wire[3:]), block, align, machine.warp_size)
        pointers = {"encoded": "u8", "x": DTYPES[kernel.dtype], "out": DTYPES[kernel.dtype]}
    function = getattr(kernels, f"{kernel.operation}_kernel")
    return compile_function(function, pointers, options, machine)


def compile_function(
    function: Any, pointers: Mapping[str, str], options: Mapping[str, Any], machine: GPUTarget
) -> Assembly:
    """What a device runs of a kernel with these types of its tensors; its other arguments are int32."""
    names = list(enumerate(function.arg_names))
    signature = {name: "i32" for _, name in names}
    signature |= {name: f"*{pointers[name]}" for _, name in names if name in pointers}
    signature |= {name: "constexpr" for _, name in names if name in options}
    source = ASTSource(
        function,
        signature,
        {(index,): options[name] for index, name in names if name in options},
        {(index,): [["tt.divisibility", 16]] for index, name in names if name in pointers},
    )
    chosen = {key: options[key] for key in ("num_warps", "enable_fp_fusion") if key in options}
    asm = triton.compile(source, target=machine, options=chosen).asm
    return read_amd(asm["amdgcn"]) if machine.backend == "hip" else read_nvidia(asm)


def read_amd(text: str) -> Assembly:
    """Read a compiled kernel's assembly, which lists its resources at the end."""
    counts = {"load": Counter[int](), "store": Counter[int]()}
    for direction, width in _AMD_ACCESS.findall(text):
        counts[direction][_AMD_BYTES[width]] += 1
    resources = {key: int(value) for key, value in re.findall(r"^\s+\.(\w+):\s+(\d+)$", text, re.MULTILINE)}
    return Assembly(
        text,
        counts["load"],
        counts["store"],
        resources["vgpr_count"] + resources.get("agpr_count", 0),
        resources["sgpr_count"],
        resources["vgpr_spill_count"] + resources["sgpr_spill_count"],
        resources["private_segment_fixed_size"],
    )


def read_nvidia(asm: Mapping[str, Any]) -> Assembly:
    """Read PTX, which names the accesses, and the cubin, which has registers allocated."""
    counts = {"ld": Counter[int](), "st": Counter[int]()}
    for direction, vector, bits in _PTX_ACCESS.findall(asm["ptx"]):
        counts[direction][int(vector or 1) * int(bits) // 8] += 1
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    resources = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    scratch = resources["STACK"] + resources["LOCAL"]
    return Assembly(asm["ptx"], counts["ld"], counts["st"], resources["REG"], 0, scratch // 4, scratch)
