"""What a run says of itself while it goes on."""

from __future__ import annotations

from pathlib import Path

from support.ranks import run_ranks
from support.runs import records, slow_run, train_run
from support.specs import run_spec


def test_a_rank_that_holds_the_others_up_is_named(tmp_path: Path) -> None:
    spec = run_spec(devices=3, sharding="zero3", training={"steps": 12, "global_batch_size": 3})
    run_ranks(3, slow_run, spec, tmp_path, 2)
    (warning,) = records(tmp_path, "warning")
    assert (warning["about"], warning["step"]) == ("straggler", 10)
    assert warning["message"].startswith("rank 2 holds the others up: it works for ")
    step = records(tmp_path, "step")[-1]
    assert step["slowest_rank"] == 2
    assert step["slowest_busy_s"] > 0.1 > step["busy_s"] > 0


def test_a_run_that_is_asked_for_deterministic_kernels_trains(tmp_path: Path) -> None:
    spec = run_spec(devices=2, sharding="zero3", training={"steps": 2, "deterministic": True})
    assert run_ranks(2, train_run, spec, tmp_path) == ["done", "done"]
