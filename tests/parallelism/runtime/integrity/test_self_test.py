"""A device that computes or remembers wrongly is named before the run begins."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch

from frontrunner.parallelism.runtime.integrity import self_test
from support.flips import faulty_device_run
from support.ranks import run_ranks
from support.specs import run_spec


def test_a_good_device() -> None:
    problem, products = self_test.problem_of(torch.device("cpu"))
    assert problem is None and (problem, products) == self_test.problem_of(torch.device("cpu"))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("now and then", "computes another product each time"),
        ("always", "computes a wrong product"),
        ("memory", "1 of 2097152 words of memory do not keep what is written"),
        ("same sum", "computes other products than most devices"),
    ],
)
def test_a_faulty_device_ends_the_run_before_it_begins(tmp_path: Path, fault: str, said: str) -> None:
    spec = run_spec(devices=3, training={"steps": 1, "global_batch_size": 3})
    ends = run_ranks(3, faulty_device_run, spec, tmp_path, 2, fault)
    for end in ends:
        assert end.startswith("failed: the self-test of a device failed: rank 2 on ")
        assert f": {said}; exclude it, or set watch.self_test: false" in end
    assert not (tmp_path / "records.jsonl").exists()
    watch = spec.watch.model_copy(update={"self_test": False})
    without = spec.model_copy(update={"watch": watch})
    if fault == "memory":
        assert run_ranks(3, faulty_device_run, without, tmp_path, 2, fault) == ["done"] * 3
