"""The kernels of the wire formats: what they compile to, and how fast they encode and decode rows here.

The first table needs Triton but no GPU. The second compares the CPU path with PyTorch's own quantisation of
the same blocks, in turn, so that a machine whose speed drifts does not disturb the ratio. DeepSpeed's
quantizer does not exist on CPU. With a GPU, a third table compares the kernels with copying as many bytes,
and with DeepSpeed's quantizer if it is installed and builds.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from frontrunner.parallelism.runtime.first_day.kernels import INTEGERS, operations
from frontrunner.parallelism.runtime.wire.formats import WireFormat, wire_format

BLOCK = 256


def kernel_table() -> Table:
    """Registers, spills and widths of the accesses, as read from the assembly."""
    from frontrunner.parallelism.runtime.wire.assembly import KERNELS, TARGETS, compile_kernel

    table = Table("operation", "wire", "floats", "target", title=f"Kernels, blocks of {BLOCK}")
    for column in ("registers", "scalar", "spilled", "scratch, bytes", "bytes a load", "bytes a store"):
        table.add_column(column, justify="right")
    for kernel in KERNELS:
        for target in TARGETS:
            assembly = compile_kernel(kernel, target, BLOCK)
            figures = (assembly.registers, assembly.scalar_registers or "-", assembly.spilled_registers)
            widths = (_widths(counts) for counts in (assembly.loads, assembly.stores))
            table.add_row(*kernel, target, *map(str, figures), str(assembly.scratch_bytes), *widths)
    table.caption = "Loads and stores of 4 bytes are the scales'. PTX has no scalar registers."
    return table


def _widths(counts: dict[int, int]) -> str:
    return ", ".join(f"{count} x {width}" for width, count in sorted(counts.items(), reverse=True))


def round_trip(wire: WireFormat, x: Tensor) -> Callable[[], object]:
    """Encode and decode in buffers that exist, as a run does."""
    encoded, out = wire.encode(x), torch.empty_like(x)

    def run() -> None:
        wire.encode(x, encoded)
        wire.decode(encoded, x.shape[1], out)

    return run


def torch_paths(x: Tensor, qmax: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """PyTorch's own ways to quantise and dequantise: each block is a channel. None packs two in a byte."""
    importlib.import_module("torch.ao.quantization.fx._decomposed")
    decomposed: Any = torch.ops.quantized_decomposed
    blocks = x.view(-1, BLOCK)
    zeros = torch.zeros(len(blocks), dtype=torch.int32)

    def scales() -> Tensor:
        return blocks.abs().amax(1).float().div_(qmax)

    def per_channel() -> Tensor:
        quantised = torch.quantize_per_channel(blocks.float(), scales(), zeros, 0, torch.qint8)
        return quantised.dequantize().to(x.dtype)

    def ao() -> Tensor:
        found, bounds = scales(), (0, -qmax, qmax, torch.int8)
        quantised = decomposed.quantize_per_channel(blocks.float(), found, zeros, *bounds)
        return decomposed.dequantize_per_channel(quantised, found, zeros, *bounds).to(x.dtype)  # type: ignore[no-any-return]

    def fake() -> Tensor:
        found = torch.fake_quantize_per_channel_affine(blocks.float(), scales(), zeros, 0, -qmax, qmax)
        return found.to(x.dtype)

    if qmax == 127:
        yield "torch.quantize_per_channel", per_channel
    yield "torch.ao quantized_decomposed", ao
    yield "torch.fake_quantize_per_channel", fake


def cpu_table(elements: int, rounds: int) -> Table:
    table = Table("wire", "floats", "beside", title=f"Quantise and dequantise {elements} elements on CPU")
    for column in ("ns/element", "GB/s of floats", "beside: GB/s", "ratio (min to max)"):
        table.add_column(column, justify="right")
    for name in INTEGERS:
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(1, elements).to(dtype)
            ours = round_trip(wire_format(name, BLOCK), x)
            for beside, theirs in torch_paths(x, 127 if name == "int8" else 7):
                pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
                ratios = sorted(other / own for own, other in pairs)
                own_s, other_s = (statistics.median(column) for column in zip(*pairs, strict=True))
                table.add_row(
                    name,
                    str(dtype).removeprefix("torch."),
                    beside,
                    f"{own_s / elements * 1e9:.2f}",
                    f"{x.nbytes / own_s / 1e9:.2f}",
                    f"{x.nbytes / other_s / 1e9:.2f}",
                    f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                )
    return table


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call, after one that does not count: others may use the machine meanwhile."""
    run()
    start = time.process_time()
    run()
    return time.process_time() - start


def gpu_table(elements: int, rounds: int) -> Table:
    """Bytes read and written over time, beside those of a copy."""
    table = Table(
        "operation", "wire", title=f"{elements} bfloat16 elements on {torch.cuda.get_device_name()}"
    )
    for column in ("ms", "GB/s", "share of a copy's"):
        table.add_column(column, justify="right")
    x = torch.randn(8, elements // 8, device="cuda").bfloat16()
    copy = torch.empty_like(x)
    copy_rate = 2 * x.nbytes / gpu_seconds(lambda: copy.copy_(x), rounds)
    for name in (*INTEGERS, "bfloat16"):
        for operation, moved, run in operations(wire_format(name, BLOCK), x):
            table.add_row(operation, name, *_rates(gpu_seconds(run, rounds), moved, copy_rate))
    for bits, run in deepspeed_quantizer(x):
        moved = x.nbytes * (16 + bits) // 16
        table.add_row("DeepSpeed's", f"int{bits}", *_rates(gpu_seconds(run, rounds), moved, copy_rate))
    return table


def _rates(took: float, moved: int, copy_rate: float) -> tuple[str, str, str]:
    return f"{took * 1e3:.3f}", f"{moved / took / 1e9:.0f}", f"{moved / took / copy_rate:.2f}"


def deepspeed_quantizer(x: Tensor) -> Iterator[tuple[int, Callable[[], object]]]:
    """DeepSpeed's CUDA op, which it compiles when it is first loaded; none where that cannot be done."""
    try:
        op = importlib.import_module("deepspeed.ops.op_builder").QuantizerBuilder().load()
    except Exception as error:  # a missing compiler or CUDA toolkit shows in many ways
        print(f"DeepSpeed's quantizer is not measured: {error}")
        return
    half = x.half()
    for bits in (8, 4):
        yield bits, lambda bits=bits: op.quantize(half, half.numel() // BLOCK, bits, op.Symmetric)  # type: ignore[misc]


def gpu_seconds(run: Callable[[], object], rounds: int) -> float:
    """Median of one call, on the device's clock."""
    run()
    took: list[float] = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        took.append(start.elapsed_time(end) / 1e3)
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=3 * 2**18, help="of a row on CPU")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=1, help="of torch on CPU, as one rank has them")
    args = parser.parse_args()
    console = Console(width=None if Console().is_terminal else 140)
    try:
        console.print(kernel_table())
    except ModuleNotFoundError as error:
        console.print(f"The kernels are not compiled: {error}. Triton comes with the extra `test`.")
    torch.set_num_threads(args.threads)
    console.print(cpu_table(args.elements, args.rounds))
    if torch.cuda.is_available():
        console.print(gpu_table(2**28, args.rounds))


if __name__ == "__main__":
    main()
