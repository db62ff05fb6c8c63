from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch.distributed as dist

from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.communicator_count import communicators
from frontrunner.parallelism.runtime import process_groups
from support.issue_runs import groups_made
from support.ranks import run_ranks
from support.sockets import listening
from support.specs import run_spec, sharing

FOUR: dict[str, Any] = {"nodes": 2, "devices": 2}
EIGHT: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
SPECS = {
    "ddp": run_spec(**FOUR),
    "zero3, shared": sharing(run_spec(**FOUR, sharding="zero3")),
    "zeropp": run_spec(**FOUR, sharding="zeropp"),
    "three_level": run_spec(**EIGHT, sharding="three_level"),
    "tied stages": run_spec(**FOUR, layout={"pipeline": 4}),
    "stages": run_spec(**FOUR, model="llama", layout={"pipeline": 4}),
    "tensor, stages": run_spec(**EIGHT, sharding="zero1", layout={"tensor": 2, "pipeline": 2}),
}


def test_ranks_of_one_machine_listen_on_loopback_alone() -> None:
    found = run_ranks(2, listening, run_spec(devices=2))
    assert [len(of_rank) > 0 for of_rank in found] == [True, True]
    assert all(all(of_rank) for of_rank in found)


@pytest.mark.parametrize("name", SPECS)
def test_ranks_make_as_many_groups_as_the_planner_counts(name: str) -> None:
    spec = SPECS[name]
    found = run_ranks(spec.world_size, groups_made, spec)
    planned = communicators(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))[0]
    assert max(found) == (planned, planned)
    assert all(made == named for made, named in found)


def test_a_rank_without_part_in_a_split_enters_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL waits for all ranks of the world; a group that lacks this rank gives it none."""
    entered: list[Any] = []
    monkeypatch.setattr(dist, "split_group", lambda split_ranks: entered.append(split_ranks))
    process_groups._split((1, 3), rank=3, world_size=4)
    process_groups._split(None, rank=3, world_size=4)
    assert entered == [[[1, 3]], [[0]]]
