"""Imports megatron-core without torch's compiler where torch is a CPU build.

megatron-core decorates its fused functions with ``torch.compile`` as it is imported. That loads torch's
compiler: two of a rank's five seconds of start-up. CPU ranks fuse nothing, so those functions stay as they
are. Import this before anything of megatron-core.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch


def _as_it_is(function: Any = None, **_: Any) -> Any:
    return function if function is not None else lambda given: given


# Not torch.cuda.is_available(), which asks the driver: a process that has asked must not fork ranks.
if torch.version.cuda is None and torch.version.hip is None:
    with mock.patch.object(torch, "compile", _as_it_is):
        import megatron.core
else:
    import megatron.core  # noqa: F401
