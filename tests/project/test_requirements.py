"""pyproject.toml says what is needed, constraints.txt with what it was tested."""

from __future__ import annotations

import pytest
from packaging.utils import canonicalize_name

from support.requirements import installed, pins, required
from support.tree import pyproject

INSTALLED_BY_MAKE = ("train", "tensorboard", "analysis", "sweep", "docs", "test")
BROUGHT_BY_CUDA_TORCH = ("cuda-", "nvidia-", "triton")  # pinned by torch's own metadata


def test_requirements_are_lower_bounds_only() -> None:
    """Sites bring their own torch, whose version an upper bound or a pin would refuse."""
    extras = pyproject()["project"]["optional-dependencies"]
    bounds = {str(r): [s.operator for s in r.specifier] for r in required(*extras)}
    assert {text: found for text, found in bounds.items() if found != [">="]} == {}


def test_pins_meet_the_requirements() -> None:
    pinned = pins()
    for requirement in required(*INSTALLED_BY_MAKE):
        (pin,) = pinned[canonicalize_name(requirement.name)].specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{requirement} is pinned to {pin}"


def test_everything_that_is_installed_is_pinned() -> None:
    pytest.importorskip("torch")
    names = installed(required(*INSTALLED_BY_MAKE))
    assert {"torch", "sympy"} <= names, "torch and what it requires are installed"
    assert not [name for name in names - pins().keys() if not name.startswith(BROUGHT_BY_CUDA_TORCH)]
