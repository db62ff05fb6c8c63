from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from frontrunner.parallelism.runtime.anomalies import (
    LossWatch,
    RouterWatch,
    StragglerWatch,
    slowest,
    with_rank,
)


def test_a_loss_that_jumps_is_told_from_noise() -> None:
    noise, watch = random.Random(1), LossWatch()
    falling = [5 - 0.01 * step + noise.gauss(0, 0.05) for step in range(200)]
    assert [watch.add(loss) for loss in falling] == [None] * 200
    message = watch.add(8.0)
    assert message is not None
    assert message.startswith("the loss jumped to 8.0000 from 3.")
    assert watch.add(float("nan")) is None  # such a step is skipped


def test_a_few_steps_tell_nothing() -> None:
    watch = LossWatch()
    assert [watch.add(loss) for loss in (5.0, 4.0, 9.0)] == [None] * 3


def test_a_rank_that_holds_the_others_up_is_named_once() -> None:
    watch = StragglerWatch()
    messages = [watch.add(5, 0.9, 0.4, 1.0) for _ in range(30)]
    assert messages[:9] == [None] * 9
    assert messages[9] == (
        "rank 5 slows the others down: it works for 90% of a step, the average rank for 40% (last 10 steps)"
    )
    assert messages[10:] == [None] * 20


def test_ranks_that_take_turns_and_small_differences_are_no_stragglers() -> None:
    watch = StragglerWatch()
    assert not any(watch.add(step % 2, 0.9, 0.4, 1.0) for step in range(30))
    assert not any(watch.add(1, 0.45, 0.4, 1.0) for _ in range(30))
    assert not any(watch.add(1, 0.05, 0.01, 1.0) for _ in range(30))


@given(st.floats(0, 8000), st.integers(0, 2**20 - 1))
def test_seconds_and_rank_travel_in_one_number(seconds: float, rank: int) -> None:
    found, again = slowest(with_rank(seconds, rank))
    assert found == rank
    assert abs(again - seconds) < 1e-6
    assert with_rank(seconds + 1e-5, 0) > with_rank(seconds, rank)


def test_a_collapsed_router_is_named_once() -> None:
    watch = RouterWatch(most=4.0)
    messages = [watch.add(3.9, 0.2) for _ in range(25)]
    assert messages[:19] == [None] * 19
    assert messages[19] == (
        "the router has collapsed: its busiest expert gets 3.9 times the mean, and 20% of the experts get no "
        "token (last 20 steps); raise model.experts.aux_loss"
    )
    assert messages[20:] == [None] * 5
    watch = RouterWatch(most=4.0)
    assert [bool(watch.add(2.0, 0.6)) for _ in range(20)] == [False] * 19 + [True]


def test_an_uneven_load_is_no_collapse() -> None:
    watch = RouterWatch(4.0)
    assert not any(watch.add(2.5, 0.4) for _ in range(40))
    assert not any(watch.add(3.9 if step % 19 else 1.0, 0.0) for step in range(100))
    dense = RouterWatch(1.0)
    assert not any(dense.add(1.0, 0.0) for _ in range(40))
