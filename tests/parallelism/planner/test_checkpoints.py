from __future__ import annotations

import math

import pytest

from frontrunner.configs.load import load_run
from frontrunner.parallelism.planner.checkpoints import (
    checkpoint_bytes,
    interval_s,
    plan_checkpoints,
    write_s,
)


def test_young_s_interval() -> None:
    spec = load_run("gpt-175b-frontier").spec
    machine = spec.machine
    assert machine.reliability
    size = checkpoint_bytes(spec.model)
    assert size == pytest.approx(12 * 175e9, rel=0.01)
    cost_s = write_s(spec.model, machine, 16)
    assert cost_s == pytest.approx(size / 16 / machine.reliability.write_bytes_per_s_per_node)
    mtbf_s = machine.reliability.node_mtbf_s / 16
    assert interval_s(60.0, machine, 16) == pytest.approx(math.sqrt(2 * 60 * mtbf_s))
    # Four times the nodes fail four times as often.
    assert interval_s(60.0, machine, 64) == pytest.approx(interval_s(60.0, machine, 16) / 2)
    assert interval_s(1e9, machine, 16) == 1e9


def test_the_plan_of_a_run() -> None:
    plan = plan_checkpoints(load_run("gpt-1t-frontier").spec)
    assert plan is not None
    assert plan.write_s < plan.interval_s < plan.mtbf_s
    assert plan_checkpoints(load_run("quickstart").spec) is None
