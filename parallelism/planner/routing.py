"""How many copies of a token are sent to experts if routing is uniform, and what a copy's row holds.

A token chooses k different experts of E. Over m members of E / m experts each, it needs a copy on

    m (1 - C(E - E / m, k) / C(E, k))

of them on average: on each member that has at least one of its experts. The mean is exact for any router that
chooses each set of k experts equally often, which a load-balancing loss aims at.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from frontrunner.configs.experts import ExpertsSpec


class RowBytes(NamedTuple):
    """Bytes of the messages of one copy of a token: in a forward, and in a backward."""

    forward: float
    backward: float


def expected_copies(experts: ExpertsSpec, members: int) -> float:
    """Members that have an expert of a token. ``members`` divides the number of experts."""
    count, chosen = experts.num_experts, experts.experts_per_token
    return members * (1 - comb(count - count // members, chosen) / comb(count, chosen))


def copies(experts: ExpertsSpec, members: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """:func:`expected_copies` [n] for each of n numbers of members."""
    known, of = np.unique(members, return_inverse=True)
    return np.array([expected_copies(experts, int(number)) for number in known])[of]


def token_bytes(hidden: int, width: int, int8: bool) -> float:
    """Bytes of a token's values: in the run's precision, or int8 with a float32 scale."""
    return hidden + 4 if int8 else hidden * width


def row_bytes(experts: ExpertsSpec, values: float) -> RowBytes:
    """``values`` are bytes of the token's values.

    Forward: values, ids (int32) and weights (float32) of its experts go out, and outputs come back. Backward:
    gradients of outputs go out; gradients of inputs and of the weights (float32) come back.
    """
    chosen = experts.experts_per_token
    return RowBytes(2 * values + (4 + 4) * chosen, 2 * values + 4 * chosen)
