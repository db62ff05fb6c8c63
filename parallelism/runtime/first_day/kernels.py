"""Wire formats on a device: do they encode as their definition says, and how fast?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.first_day.figures import arrive, publish
from frontrunner.parallelism.runtime.probe import best_s, copy
from frontrunner.parallelism.runtime.wire.formats import WireFormat, WireName, wire_format

INTEGERS: tuple[WireName, ...] = ("int8", "int4")
_QMAX = {"int8": 127, "int4": 7}
_LEAST_SCALE = 2.0**-126
_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Elements of a row: whole blocks, a last one that is shorter, one alone.
_LENGTHS = (1, 255, 4096, 100_001)
_ROWS = 8
_ELEMENTS = {"cuda": 2**28, "cpu": 2**20}


def measure(
    spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: Callable[..., None] | None = None
) -> None:
    """Compare the kernels of this rank's device with torch, then measure them; alone on each device."""
    device = select_device(spec.machine.device.kind, rendezvous.local_rank)
    block, rank = spec.layout.sharding.wire.block, rendezvous.rank
    wrong = []
    for name, dtype, n in itertools.product(INTEGERS, _DTYPES, _LENGTHS):
        arrive(run_dir, rank, f"{name} of {n} elements of {dtype}")
        wrong += differences(wire_format(name, block), dtype, n, device)
    rates = []
    x = torch.randn(_ROWS, _ELEMENTS[device.type] // _ROWS, device=device).bfloat16()
    for name in (*INTEGERS, "bfloat16"):
        for operation, moved, run in operations(wire_format(name, block), x):
            arrive(run_dir, rank, f"the rate of {operation} in {name}")
            rates.append({"wire": name, "operation": operation, "bytes_per_s": moved / best_s(run, device)})
    found = {"device": str(device), "compared": len(INTEGERS) * len(_DTYPES) * len(_LENGTHS)}
    publish(run_dir, rank, found | {"wrong": wrong, "rates": rates, "copy_bytes_per_s": copy(device)})


def differences(wire: WireFormat, dtype: torch.dtype, n: int, device: torch.device) -> list[str]:
    """What a format does on a device that torch on the CPU does not, by its definition; empty if nothing."""
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, n, generator=generator).to(dtype)
    x[1] *= 1e-3  # scales that differ from row to row
    expected = rounded(x, _QMAX[wire.name], wire.block)
    encoded = wire.encode(x.to(device))
    found, total = torch.empty(2, n, device=device), torch.empty(1, n, device=device)
    wire.decode(encoded, n, found)
    wire.decode_sum(encoded.unsqueeze(1), total)
    what = f"{wire.name} of {n} elements of {str(dtype).removeprefix('torch.')}"
    wrong = []
    if not torch.equal(found.cpu(), expected):
        wrong.append(f"decoded {what}")
    if not torch.equal(total[0].cpu(), expected[0] + expected[1]):
        wrong.append(f"the sum of rows of {what}")
    if not torch.equal(encoded.cpu(), wire.encode(x)):
        wrong.append(f"encoded {what}")
    return wrong


def rounded(x: Tensor, qmax: int, block: int) -> Tensor:
    """``x`` [rows, n] as its blocks come back, float32: the definition in ``wire/formats.py``, in torch."""
    padded = torch.nn.functional.pad(x.float(), (0, -x.shape[1] % block))
    blocks = padded.unflatten(1, (-1, block))
    scales = (blocks.abs().amax(-1, keepdim=True) / qmax).clamp(min=_LEAST_SCALE)
    decoded: Tensor = (torch.round(blocks / scales) * scales).flatten(1)
    return decoded[:, : x.shape[1]]


def operations(wire: WireFormat, x: Tensor) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """What is done to rows [rows, n], the bytes that it moves, and how, in buffers that exist."""
    encoded, out, n = wire.encode(x), torch.empty_like(x), x.shape[1]
    rows, total = encoded.unsqueeze(1), torch.empty(1, n, device=x.device)
    yield "quantize", x.nbytes + encoded.nbytes, lambda: wire.encode(x, encoded)
    yield "dequantize", x.nbytes + encoded.nbytes, lambda: wire.decode(encoded, n, out)
    yield "dequantize_sum", encoded.nbytes + total.nbytes, lambda: wire.decode_sum(rows, total)
