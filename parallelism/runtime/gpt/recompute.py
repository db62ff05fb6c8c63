"""Recomputation: which activations are dropped after the forward and recomputed in the backward.

It is applied to built layers from outside. ``full`` only keeps a layer's input. ``selective`` recomputes the
output of core attention (Korthikanti et al. 2022), whose inputs are cheap to keep.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from torch.utils.checkpoint import checkpoint

from frontrunner.configs.schema import Recompute
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.trace_events import RECOMPUTE


def apply_recompute(layers: Any, mode: Recompute, compiled: bool = False) -> None:
    """Wrap ``forward`` of each layer (full) or of its core attention (selective).

    A compiled layer leaves a core attention that is recomputed outside: it is one kernel already.
    """
    for layer in layers:
        if mode == "full":
            layer.forward = _recomputed(layer.forward)
        elif mode == "selective":
            attention = layer.self_attention.core_attention
            wrapped = _recomputed(attention.forward)
            attention.forward = torch.compiler.disable(wrapped) if compiled else wrapped


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(forward)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=_same_masks, **kwargs)

    return wrapper


def _same_masks() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Restore the tensor ranks' own generators for the second run; torch only restores the default ones."""
    tracker = get_cuda_rng_tracker()
    first = tracker.get_states()

    @contextmanager
    def again() -> Iterator[None]:
        now = tracker.get_states()
        tracker.set_states(first)
        try:
            with ranges.part(RECOMPUTE):
                yield
        finally:
            tracker.set_states(now)

    return nullcontext(), again()
