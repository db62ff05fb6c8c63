"""Imports megatron-core without what ranks do not use of it.

Its timers can write to TensorBoard and Weights & Biases, and import both. Ranks use no such timers: what
shows a run is in the launcher. Where torch is a CPU build, triton and torch's compiler are left out too.
megatron-core decorates its fused functions with ``torch.compile`` as it is imported, and that loads the
compiler: two of a rank's five seconds of start-up. CPU ranks fuse nothing, so those functions stay as they
are. Import this before anything of megatron-core.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from frontrunner.parallelism.versions import version


def _as_it_is(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda given: given


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Modules that nobody has imported yet cannot be imported inside."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python refuses the import
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _absent("torch.utils.tensorboard", "wandb"):
    # Not torch.cuda.is_available(), which asks the driver: a process that has asked must not fork ranks.
    if torch.version.cuda is None and torch.version.hip is None:
        # Later versions import triton whatever the device, and fail without it.
        absent = ("triton",) if (version("megatron-core") or "").startswith("0.16.") else ()
        with _absent(*absent), mock.patch.object(torch, "compile", _as_it_is):
            import megatron.core.models.gpt.gpt_layer_specs
    else:
        import megatron.core.models.gpt.gpt_layer_specs  # noqa: F401
