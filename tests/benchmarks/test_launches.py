"""What counts as a launch."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from launches import counting

from frontrunner.parallelism.runtime.wire.formats import wire_format


def test_views_and_memory_are_no_launches() -> None:
    x = torch.randn(4, 8)
    with counting() as counts:
        y = x.t().reshape(8, 4)[:2]
        torch.empty_like(x).view(-1)
    assert not counts
    with counting() as counts:
        y @ x  # a product
        x += 1
        torch._foreach_add_([x, x], 1.0)  # a list in one
    assert counts.total() == 3


def test_a_wire_kernel_is_one_launch() -> None:
    wire, x = wire_format("int4", 32), torch.randn(2, 100)
    with counting() as counts:
        encoded = wire.encode(x)
        wire.decode(encoded, 100, out=x)
    assert counts == {"engine": 2}


def test_a_backward_is_its_model_s() -> None:
    layer = torch.nn.Linear(4, 4)
    with counting() as counts:
        layer(torch.randn(2, 4)).sum().backward()
    assert counts["model"] > 0
