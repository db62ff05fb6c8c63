"""Ranks whose layers are compiled."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from support.training import Curve, curve


def captured_curve(*args: Any) -> Curve:
    """A curve with the graphs that are captured, forward and backward, before they become kernels."""
    torch.compile = partial(torch.compile, backend="aot_eager")
    return compiled_curve(*args)


def compiled_curve(*args: Any) -> Curve:
    """A curve of layers that were compiled, and not left alone for some reason."""
    found = curve(*args)
    from torch._dynamo.utils import counters

    assert counters["stats"]["unique_graphs"] > 0, "nothing was compiled"
    return found
