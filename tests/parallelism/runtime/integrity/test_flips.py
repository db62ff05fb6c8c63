"""Flipped bits are found and named, and a run without one is not disturbed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

from frontrunner.configs.schema import RunSpec
from frontrunner.run_folder import checkpoints, failures
from support.flips import PLACES, Flip, flipped_run, flips
from support.ranks import run_ranks
from support.runs import losses, records, train_run
from support.specs import FEW, GPT, run_spec, saving
from support.training import curve

EIGHT: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
BFLOAT16: dict[str, Any] = {
    "training": {"precision": "bfloat16", "global_batch_size": 8},
    "wire": dict.fromkeys(("weights", "gradients", "network"), "bfloat16"),
}


def verified(spec: RunSpec, every: int = 1) -> RunSpec:
    watch = spec.watch.model_copy(update={"verify_every_steps": every})
    return spec.model_copy(update={"watch": watch})


def flipped(spec: RunSpec, each: int = 2) -> dict[str, list[Flip]]:
    """What came of the flips, by place; the same on every rank."""
    ranks = run_ranks(spec.world_size, flips, verified(spec), PLACES, each, 1)
    assert all(found == ranks[0] for found in ranks)
    return {place: found for place in PLACES if (found := [f for f in ranks[0] if f.place == place])}


def test_flips_in_state_that_is_held_once() -> None:
    found = flipped(run_spec(**EIGHT, sharding="three_level", **BFLOAT16))
    assert list(found) == list(PLACES)
    # Nothing else holds the gradient's sum that it could be compared with.
    assert [flip.message for flip in found.pop("reduced gradient")] == [None, None]
    for place, tried in found.items():
        for flip in tried:
            assert flip.message is not None, place
            assert flip.message.startswith("silent data corruption, found at step ")
            assert f"rank {flip.rank} on " in flip.message
    for place in ("master weights", "first moments", "second moments", "gathered weights in use"):
        assert all(flip.named == flip.rank for flip in found[place]), place


def test_flips_in_one_of_four_copies() -> None:
    found = flipped(run_spec(packages=2, devices=2, sharding="ddp", **BFLOAT16))
    for place in ("weight replica", "master weights", "first moments", "second moments", "reduced gradient"):
        for flip in found[place]:
            assert flip.named == flip.rank, place
    assert all(flip.message and "gradients arrived as other bytes" in flip.message
               for flip in found["gradient message"])  # fmt: skip


@pytest.mark.parametrize(
    ("sharding", "expert", "place", "kind"),
    [
        ("ddp", 2, "master weights", "experts' master weights"),
        ("zero1", 4, "weight replica", "experts' weights"),
    ],
)
def test_flips_in_copies_of_experts(sharding: Any, expert: int, place: str, kind: str) -> None:
    """Eight ranks hold two or four copies of each expert; of everything else they hold eight."""
    spec = verified(
        run_spec(model="sparse", **EIGHT, sharding=sharding, layout={"expert": expert}, **BFLOAT16)
    )
    found = run_ranks(8, flips, spec, [place], 6, 3)[0]
    assert [flip.message is not None for flip in found] == [True] * 6
    assert any(kind in str(flip.message) for flip in found)
    assert all(flip.named == flip.rank for flip in found if expert == 2)


def test_flips_in_experts_that_are_held_once() -> None:
    """Of everything else there are eight copies, which would need no watching between two updates."""
    spec = verified(run_spec(model="sparse", **EIGHT, sharding="ddp", layout={"expert": 8}, **BFLOAT16))
    found = run_ranks(8, flips, spec, ["first moments"], 6, 3)[0]
    assert [flip.named for flip in found] == [flip.rank for flip in found]


CLEAN = {
    "experts of nodes": run_spec(
        model="sparse", **EIGHT, sharding="zero1", layout={"expert": 4}, training={"steps": 4}
    ),
    "three_level, quantised, dropout": run_spec(
        model=GPT | {"attention_dropout": 0.1, "hidden_dropout": 0.1},
        **EIGHT,
        sharding="three_level",
        training={"precision": "bfloat16", "steps": 4},
        wire={"weights": "int8", "gradients": "int4", "network": "bfloat16", "block": 32}
        | {"error_feedback": True},
    ),
    "zeropp, tensor 2": run_spec(
        packages=2, devices=2, sharding="zeropp", layout=FEW | {"tensor": 2}, training={"steps": 4}
    ),
    "tensor 2, sequence parallel, pipeline 2": run_spec(
        **EIGHT,
        sharding="zero1",
        layout=FEW | {"tensor": 2, "sequence_parallel": True, "pipeline": 2},
        training={"steps": 4},
    ),
    "float16, skipped steps": run_spec(
        devices=2, sharding="zero1", layout=FEW, training={"precision": "float16", "steps": 4}
    ),
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_run_is_the_same_with_and_without(name: str) -> None:
    with_, without = (
        run_ranks(CLEAN[name].world_size, curve, verified(CLEAN[name], every)) for every in (1, 0)
    )
    assert (with_[0].losses, with_[0].norms) == (without[0].losses, without[0].norms)


def test_a_run_goes_back_before_the_flip(tmp_path: Path) -> None:
    """The flip after step 5 is found before the checkpoint of step 6 would hold it."""
    spec = verified(saving(run_spec(devices=3, training={"global_batch_size": 3}), every_steps=2), every=100)
    assert set(run_ranks(3, train_run, spec, tmp_path / "whole")) == {"done"}
    run_dir = tmp_path / "flipped"
    ends = run_ranks(3, flipped_run, spec, run_dir, 1, 5)
    assert all(end.startswith("failed: silent data corruption, found at step 6: rank 1 on ") for end in ends)
    assert [path.name for path in checkpoints.found(run_dir)] == ["step-00000004", "step-00000002"]
    (warning,) = records(run_dir, "warning")
    assert (warning["about"], warning["message"]) == ("corruption", ends[0].removeprefix("failed: "))
    assert set(run_ranks(3, train_run, spec, run_dir)) == {"done"}
    assert records(run_dir, "header")[-1]["continued_from"] == 4
    assert losses(run_dir) == losses(tmp_path / "whole")


def test_every_rank_names_the_one_at_fault(tmp_path: Path) -> None:
    from frontrunner.run_folder.endings import Corrupted

    failure = failures.record(tmp_path, 0, Corrupted(7, "rank 2 on b (cpu): weights differ", 2, "b"))
    assert failures.read(tmp_path, 0) == failure and failures.first_cause(tmp_path) == failure
    assert (failure.rank, failure.host) == (2, "b")
    assert failures.corrupted(failure.summary) and not failures.corrupted("rank 2: ValueError: weights")
    assert failure.explanation(4, tmp_path).startswith("rank 2 of 4 on b failed; the other 3 ended")
