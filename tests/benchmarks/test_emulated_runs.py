"""The measurements on the emulated cluster, small: what they count and what their tables say."""

from __future__ import annotations

import json

import engines
import pytest
from emulated_cluster.cluster import EmulatedCluster
from emulated_runs import UNITS, Engine, peak_tensor_bytes, run, run_spec

from frontrunner.launcher.ranks.local import PRELOAD
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.traffic import traffic
from support.emulation import emulates, topology

THREE_LEVEL = Engine("three_level, int8/int4", {"preset": "three_level"})


@emulates
@pytest.mark.long
def test_a_run_agrees_with_the_kernel_and_the_formula() -> None:
    """One node of eight devices, where nothing crosses a network."""
    with EmulatedCluster(topology(nodes=1, packages=4), PRELOAD) as cluster:
        spec = run_spec(1, 2, 8, THREE_LEVEL)
        found = run(cluster, THREE_LEVEL, spec, budget_s=1e9)
        short = run(cluster, THREE_LEVEL, spec, budget_s=1e-9)
        peak = peak_tensor_bytes(cluster, THREE_LEVEL, run_spec(1, 1, 8, THREE_LEVEL))
    assert len(found.steps_s) == 9
    assert short.kernel_bytes is None
    assert found.kernel_bytes is not None
    assert found.engine_bytes is not None
    formula = traffic(spec, Layout.from_spec(spec), UNITS).step(2)
    for level in LEVELS:
        assert found.engine_bytes[level] == pytest.approx(8 * formula[level], rel=0.05, abs=2000)
        assert found.kernel_bytes[level] == pytest.approx(found.engine_bytes[level], rel=0.05, abs=20000)
    # States are 9.4 bytes a parameter in these degrees; a step adds two gathered units and activations.
    held = UNITS.numel * (1 / 2 + 4 / 8 + 12 / 8)
    assert held < peak < 2 * held


@emulates
@pytest.mark.long
@pytest.mark.parametrize("engine", ["fsdp", "deepspeed"])
def test_a_peer_sends_no_more_than_on_rccl(engine: str) -> None:
    """A reduce-scatter sends half of an all-reduce, which is what gloo makes of it."""
    peer = Engine("peer", {"preset": "zero3"}, engine, "bfloat16")
    with EmulatedCluster(topology(nodes=1, packages=4, scale=20.0), PRELOAD) as cluster:
        found = run(cluster, peer, run_spec(1, 2, 8, peer), budget_s=1e9)
    spec = run_spec(1, 2, 8, Engine("own", {"preset": "zero3"}))
    formula = traffic(spec, Layout.from_spec(spec), UNITS).step(2)
    assert found.kernel_bytes is not None
    assert sum(found.kernel_bytes.values()) == pytest.approx(8 * sum(formula.values()), rel=0.05)


def test_a_table_has_each_row_and_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    sent = dict.fromkeys(LEVELS, 8e6)
    update = {"package": 0.0, "node": 2e6, "network": 1e6}
    row = {
        "kind": "row",
        "name": THREE_LEVEL.name,
        "accumulation": 1,
        "scale": 1.0,
        "rates": {"package": 50e6, "node": 25e6, "network": 6.25e6},
        "steps_s": [1.0, 2.0],
        "step_s": 1.5,
        "losses": [5.0, 4.5],
        "kernel_bytes": sent,
        "engine_bytes": sent,
        "update_bytes": update,
    }
    computing = {
        "kind": "computing",
        "name": row["name"],
        "accumulation": 1,
        "forward_backward_s": 0.99,
        "step_s": 1.05,
    }
    memory = {"kind": "memory", "name": row["name"], "peak_bytes": 30e6}
    engines.report(json.loads(json.dumps([memory, computing, row, {**row, "name": "FSDP2", "step_s": 6.0}])))
    printed = " ".join(capsys.readouterr().out.split())
    # Computing is slower than 7e6 bytes of 8 packages at 6.25e6 bytes/s; the update's network than its node.
    assert "bound 1.01 s" in printed
    assert "measured 1.49 of it" in printed
    assert "4.00" in printed  # FSDP2 to three_level
