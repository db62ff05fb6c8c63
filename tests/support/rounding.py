"""What rounding does to a run, told from what a fault does: more digits, and the same sums in another order.

A processor's kernels add in an order of their own, and AdamW makes much of the difference: an element's
first update is ``gradient / (|gradient| + epsilon)``, so that where the gradient happens to be as small as
epsilon, what rounding does to it is a few per cent of the update. One such element moves the curve of a
float32 run by 1e-5. Which elements those are is chance, so in float32 no bound holds on every processor and
still sees small faults. In float64 rounding is 1e9 times smaller, and faults are as large as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime import device
from frontrunner.parallelism.runtime.sharding import engine
from frontrunner.parallelism.runtime.sharding.parameters import Parameter, initial_values
from frontrunner.parallelism.runtime.wire import formats
from support.training import Curve, Patterns, curve


def in_double(rendezvous: Rendezvous, function: Callable[..., Any], *args: Any) -> Any:
    """``function`` on this rank with float64 wherever the runtime says float32, on wires too.

    Random numbers are still drawn in float32, so that a run starts from the values it would have had.
    """
    single, randn = torch.float32, torch.randn

    def drawn_in_single(*size: Any, **options: Any) -> torch.Tensor:
        return randn(*size, **{"dtype": single} | options).double()

    torch.randn = drawn_in_single
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    device.DTYPES["float32"] = torch.float64
    formats._FLOATS["float32"] = torch.float64
    return function(rendezvous, *args)


def reordered_curve(rendezvous: Rendezvous, spec: RunSpec, seed: int) -> Curve:
    """The curve of one rank with every sum in another order, drawn from ``seed``: the same but for rounding.

    Hidden elements, units of the MLPs, groups of heads and the samples of each batch change places.
    """
    model, size = spec.model, spec.training.global_batch_size
    orders = np.random.default_rng(seed)
    hidden = orders.permutation(model.hidden_size)
    units = cache(orders.permutation)
    heads = orders.permutation(model.num_kv_heads)
    samples = orders.permutation(size)
    sample = Patterns.__getitem__

    def moved(parameter: Parameter, seed: int) -> torch.Tensor:
        values = initial_values(parameter, seed)
        if values.dim() == 1:
            return values  # all alike at the start
        writes = parameter.name.endswith(("linear_proj.weight", "linear_fc2.weight"))
        parts = (parameter.stacked if writes else 1, model.hidden_size, 1)
        values = _moved(values, 0 if writes else 1, parts, hidden)
        if ".mlp." in parameter.name and ".linear_fc" in parameter.name:
            parts = (
                (1, values.shape[1], 1)
                if writes
                else (parameter.stacked, len(values) // parameter.stacked, 1)
            )
            values = _moved(values, int(writes), parts, units(parts[1]))
        if ".self_attention." in parameter.name:
            values = _moved(values, int(writes), (1, model.num_kv_heads, -1), heads)
        return values

    def other(self: Patterns, number: int) -> Any:
        return sample(self, number - number % size + int(samples[number % size]))

    engine.initial_values = moved  # type: ignore[attr-defined]
    Patterns.__getitem__ = other  # type: ignore[method-assign]
    return curve(rendezvous, spec)


def _moved(values: torch.Tensor, dim: int, parts: tuple[int, int, int], order: Any) -> torch.Tensor:
    """``values`` with the middle one of the ``parts`` into which a dim is cut in another order."""
    cut = torch.unflatten(values, dim, parts)
    return cut.index_select(dim + 1, torch.from_numpy(order)).flatten(dim, dim + 2)
