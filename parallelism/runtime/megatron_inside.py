"""The only place that reaches into megatron-core and handles differences between versions 0.16 and 0.19.

Other modules use its public classes and functions; those that we call were compared in 0.16.1 and 0.19.2 and
have the same signatures. This module replaces private names. If a version lacks a name, this raises: setting
it would silently do nothing, and ranks would draw equal masks or bytes would go uncounted. What must be set
before the first import of megatron-core is in ``__init__.py`` and ``quick_import.py``.
"""

from __future__ import annotations

import logging
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import megatron.core.pipeline_parallel.schedules as schedules
import megatron.core.tensor_parallel.layers as layers
import megatron.core.tensor_parallel.mappings as mappings
import megatron.core.tensor_parallel.random as random
import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel.p2p_communication import P2PCommunicator

from frontrunner.parallelism.versions import SUPPORTED, version

Collective = Callable[..., Any]


def existing(owner: Any, name: str) -> object:
    """The attribute of ``owner`` with this name. Raises RuntimeError if this version lacks it."""
    if not hasattr(owner, name):
        raise RuntimeError(
            f"megatron-core {version('megatron-core')} has no {owner.__name__}.{name}; "
            f"frontrunner is tested with {SUPPORTED['megatron-core']}"
        )
    return getattr(owner, name)


def replace(owner: Any, **values: object) -> dict[str, object]:
    """Replace these attributes of ``owner`` by ``values``, and return the originals."""
    before = {name: existing(owner, name) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    return before


def use_random_states(tracker: object) -> None:
    """Let layers fork ``tracker`` instead of the tracker of CUDA generators."""
    replace(random, _CUDA_RNG_STATE_TRACKER=tracker, _CUDA_RNG_STATE_TRACKER_INITIALIZED=True)


@contextmanager
def tensor_parallel_collectives(gather: Collective, scatter: Collective) -> Iterator[None]:
    """Inside this context, tensor-parallel layers gather and reduce-scatter with these functions.

    The layers look up all-reduce in ``torch.distributed``, but keep their own names for these two.
    """
    ours = {"dist_all_gather_func": gather, "dist_reduce_scatter_func": scatter}
    before = [(module, replace(module, **ours)) for module in (layers, mappings)]
    try:
        yield
    finally:
        for module, theirs in before:
            replace(module, **theirs)


@contextmanager
def around_backward(context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """Inside this context, each backward of a micro-batch happens in a ``context()``."""
    theirs: Any = existing(schedules, "backward_step")

    def ours(*args: Any, **kwargs: Any) -> Any:
        with context():
            return theirs(*args, **kwargs)

    replace(schedules, backward_step=ours)
    try:
        yield
    finally:
        replace(schedules, backward_step=theirs)


def make_memory_buffer() -> None:
    """A new buffer for what sequence-parallel layers gather; megatron-core needs its own groups for it."""
    parallel_state.destroy_global_memory_buffer()
    parallel_state._set_global_memory_buffer()


def use_cpu() -> None:
    """Let the model and the schedules run on CPU ranks."""
    # Receive buffers and tensor-parallel outputs are allocated on "the current CUDA device".
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    replace(schedules, torch=_TorchOnCpu("torch"))


class Hops(P2PCommunicator):
    """Messages between stages; each one happens inside :meth:`around`."""

    def around(self, to_next: Any, to_previous: Any, receives: bool) -> AbstractContextManager[None]:
        """A context around each message: what is sent, tensors or None, and whether some are received."""
        raise NotImplementedError

    def _communicate(self, *, tensor_send_next: Any, tensor_send_prev: Any, **kwargs: Any) -> Any:
        receives = bool(kwargs.get("recv_prev") or kwargs.get("recv_next"))
        with self.around(tensor_send_next, tensor_send_prev, receives):
            return super()._communicate(
                tensor_send_next=tensor_send_next, tensor_send_prev=tensor_send_prev, **kwargs
            )


existing(P2PCommunicator, "_communicate")  # or nothing would call ours


class _TorchOnCpu(types.ModuleType):
    """``torch`` as the schedules see it: their only tensor on "cuda" is created on the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def zeros(*args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return torch.zeros(*args, **kwargs)


def _is_news(record: logging.LogRecord) -> bool:
    return "GPTModel IS DEPRECATED" not in str(record.msg)


# Since 0.19 each new GPTModel warns that new features go to another class, which does not concern users.
logging.getLogger("megatron.core.models.gpt.gpt_model").addFilter(_is_news)
