"""How far the curve of a layout may lie from that of one rank: as far as rounding goes on this machine.

Curves are computed in float64; ``support.rounding`` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from support.ranks import run_ranks
from support.rounding import in_double, reordered_curve
from support.specs import MIXTURES, run_spec
from support.training import Curve, curve

#: In float64 five steps see more than any number in float32, which drifts as it goes.
STEPS = {"steps": 5}
OPTIMIZER = {"learning_rate": 3e-3}

#: Times the rounding that was measured. The orders that are tried may be lucky ones, by a factor of a hundred
#: where one element amplifies rounding; and the smallest fault is millions of times the tolerance.
SAFETY = 1000
#: A tolerance above it says that something was not computed in float64.
LARGEST_TOLERANCE = 1e-9


def steps(model: str) -> dict[str, int]:
    """How long to train: mixtures of experts learn slower."""
    return {"steps": 10} if model in MIXTURES else STEPS


def run_in_double(size: int, function: Callable[..., Any], *args: Any, **options: Any) -> list[Any]:
    """:func:`run_ranks` with its ``options``, and float64 for float32."""
    return run_ranks(size, in_double, function, *args, **options)


def difference(found: Curve, reference: Curve) -> float:
    """Largest relative difference of any loss, gradient norm or balance of experts; infinite where one is not
    a number."""
    return apart(_numbers(found), _numbers(reference))


def _numbers(curve: Curve) -> list[float]:
    balances = [
        value for balance in curve.balances if balance for value in (balance.aux_loss, balance.z_loss)
    ]
    return [*curve.losses, *curve.norms, *balances]


def apart(found: list[float], reference: list[float]) -> float:
    """Largest relative difference of two numbers; infinite where one is not a number."""
    pairs = zip(found, reference, strict=True)
    return max(abs(a - b) / b if abs(a - b) < float("inf") else float("inf") for a, b in pairs)


def record(record_property: Callable[[str, object], None], kind: str, found: float, limit: float) -> None:
    """Leave what a test measured in its report, for pytest's last lines and ``benchmarks/equality.py``."""
    for name, value in (("kind", kind), ("difference", found), ("tolerance", limit)):
        record_property(name, value)


@cache
def one_rank(model: str, global_batch_size: int = 16) -> Curve:
    spec = run_spec(
        model=model, optimizer=OPTIMIZER, training=steps(model) | {"global_batch_size": global_batch_size}
    )
    found: Curve = run_in_double(1, curve, spec)[0]
    assert min(found.losses) < found.losses[0] - 0.1, "the reference must learn, or equality says little"
    return found


@cache
def tolerance(model: str) -> float:
    """What the order of sums alone may change in a curve of ``model``, by trying two others on one rank."""
    spec = run_spec(model=model, optimizer=OPTIMIZER, training=steps(model))
    others = (run_in_double(1, reordered_curve, spec, seed)[0] for seed in (1, 2))
    rounding = max(difference(other, one_rank(model)) for other in others)
    assert rounding > 0, "another order of sums must round otherwise"
    found = SAFETY * rounding
    assert found < LARGEST_TOLERANCE
    return found
