"""A run that is continued is the run that was never interrupted, in its own layout and in others."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.reliability import ReliabilitySpec
from frontrunner.run_folder import checkpoints as files
from frontrunner.run_folder.files import CHECKPOINTS
from support.equality import OPTIMIZER, apart, run_in_double, tolerance
from support.ranks import run_ranks
from support.runs import losses, records, spoilt_run, stopped_run, train_run
from support.specs import FEW, GPT, LLAMA, run_spec, saving

BFLOAT16 = {"precision": "bfloat16"}
SIX = {"steps": 6}
INT_WIRE = {"weights": "int8", "gradients": "int4", "network": "bfloat16", "block": 32}


SAME_LAYOUT = {
    "three_level, quantised, error feedback, dropout": run_spec(
        model=GPT | {"attention_dropout": 0.1, "hidden_dropout": 0.1},
        nodes=2,
        packages=2,
        devices=2,
        sharding="three_level",
        training=BFLOAT16 | SIX | {"validation_samples": 8, "validate_every_steps": 2},
        wire=INT_WIRE | {"error_feedback": True},
    ),
    "zeropp, tensor 2": run_spec(
        packages=2,
        devices=2,
        sharding="zeropp",
        layout=FEW | {"tensor": 2},
        wire=INT_WIRE,
        training=BFLOAT16 | SIX,
    ),
    "tensor 2 x pipeline 2 x virtual 2, llama": run_spec(
        model=LLAMA,
        packages=2,
        devices=2,
        layout=FEW | {"tensor": 2, "pipeline": 2, "virtual_stages": 2},
        training=SIX,
    ),
    "float16": run_spec(packages=2, devices=2, sharding="zero1", training=SIX | {"precision": "float16"}),
    "replicas": run_spec(packages=2, devices=2, sharding=(1, 2, 2), training=SIX),
}


@pytest.mark.parametrize("name", SAME_LAYOUT)
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path, name: str) -> None:
    spec = saving(SAME_LAYOUT[name], every_steps=4)
    assert set(run_ranks(spec.world_size, train_run, spec, tmp_path)) == {"done"}
    assert [path.name for path in files.found(tmp_path)] == ["step-00000006", "step-00000004"]
    whole = [record["loss"] for record in records(tmp_path) if record["kind"] in ("step", "validation")]
    shutil.rmtree(files.found(tmp_path)[0])
    before = len(records(tmp_path))
    assert set(run_ranks(spec.world_size, train_run, spec, tmp_path)) == {"done"}
    again = records(tmp_path)[before:]
    assert again[0]["continued_from"] == 4
    tail = [record["loss"] for record in again if record["kind"] in ("step", "validation")]
    assert tail == whole[-len(tail) :]
    assert len(tail) == (2 if not spec.training.validation_samples else 3)
    first, second = records(tmp_path, "summary")
    assert first["first_validation_loss"] == second["first_validation_loss"]


#: All experts on each of 8 ranks -> expert 4 -> expert 2 x tensor 2 -> expert 8 on 2 nodes -> pipeline 2.
EXPERTS: list[dict[str, Any]] = [
    {"nodes": 2, "packages": 2, "devices": 2, "sharding": "zero3"},
    {"packages": 2, "devices": 2, "sharding": "zero1", "layout": FEW | {"expert": 4}},
    {"packages": 2, "devices": 2, "layout": FEW | {"expert": 2, "tensor": 2}},
    {"nodes": 2, "packages": 2, "devices": 2, "sharding": "three_level", "layout": {"expert": 8}},
    {"packages": 2, "devices": 2, "layout": FEW | {"pipeline": 2}},
]


@pytest.mark.long_except("llama", "sparse")
@pytest.mark.parametrize("model", ["gpt", "llama", "sparse"])
def test_resharding_joins_the_curves_without_a_step(tmp_path: Path, model: str) -> None:
    """8 ranks three_level -> 4 ranks zero1 -> tensor 2 x pipeline 2 -> 8 ranks zero3 -> tensor 4.

    Llama's tensor ranks then share key and value heads. Experts take another way.
    """
    optimizer = OPTIMIZER | {"decay_steps": 8}
    layouts: list[dict[str, Any]] = [
        {"nodes": 2, "packages": 2, "devices": 2, "sharding": "three_level"},
        {"packages": 2, "devices": 2, "sharding": "zero1"},
        {"packages": 2, "devices": 2, "layout": FEW | {"tensor": 2, "pipeline": 2}},
        {"nodes": 2, "packages": 2, "devices": 2, "sharding": "zero3"},
        {"packages": 2, "devices": 2, "layout": FEW | {"tensor": 4}},
    ]
    layouts = EXPERTS if model == "sparse" else layouts
    one = run_spec(model=model, training={"steps": 10}, optimizer=optimizer, layout=FEW)
    run_in_double(1, train_run, one, tmp_path / "one")
    joined = tmp_path / "joined"
    for index, layout in enumerate(layouts):
        steps = {"steps": 2 * (index + 1)}
        spec = run_spec(model=model, training=steps, optimizer=optimizer, **layout)
        run_in_double(spec.world_size, train_run, saving(spec, every_steps=2), joined)
    found, expected = losses(joined), losses(tmp_path / "one")
    assert found.keys() == expected.keys()
    assert apart(list(found.values()), list(expected.values())) < tolerance(model)
    assert [r["continued_from"] for r in records(joined, "header")] == [0, 2, 4, 6, 8]


def test_what_starts_anew_in_another_layout_is_said(tmp_path: Path) -> None:
    wire = INT_WIRE | {"error_feedback": True}
    old = run_spec(packages=2, devices=2, sharding="zero3", wire=wire, training=BFLOAT16 | {"steps": 2})
    new = run_spec(devices=2, sharding="zero3", wire=wire, training=BFLOAT16 | {"steps": 3})
    run_ranks(4, train_run, saving(old, every_steps=1), tmp_path)
    run_ranks(2, train_run, saving(new, every_steps=1), tmp_path)
    (warning,) = records(tmp_path, "warning")
    assert "error feedback start over" in warning["message"]


@pytest.mark.long_except("0")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_request_to_stop_saves_and_ends_all_ranks(tmp_path: Path, rank: int) -> None:
    spec = run_spec(devices=2, sharding="zero3", layout=FEW, training=SIX)
    assert run_ranks(2, stopped_run, spec, tmp_path, rank, 3) == ["stopped after 4"] * 2
    assert [path.name for path in files.found(tmp_path)] == ["step-00000004"]
    run_ranks(2, train_run, spec, tmp_path)
    run_ranks(2, train_run, spec, tmp_path / "whole")
    assert losses(tmp_path) == losses(tmp_path / "whole")


def test_a_batch_size_of_its_own_goes_on_with_the_next_sample(tmp_path: Path) -> None:
    """8 samples a step for 4 steps, then 16: as many samples as 16 from the start, the last ones alike."""
    small = run_spec(layout=FEW, training={"steps": 4, "global_batch_size": 8})
    run_ranks(1, train_run, saving(small, every_steps=4), tmp_path)
    assert files.read_manifest(files.found(tmp_path)[0]).state["samples"] == 32
    run_ranks(1, train_run, saving(run_spec(layout=FEW, training=SIX), every_steps=6), tmp_path)
    assert files.read_manifest(files.found(tmp_path)[0]).state["samples"] == 64


def test_weights_of_another_run_to_start_from(tmp_path: Path) -> None:
    run_ranks(
        1, train_run, saving(run_spec(layout=FEW, training={"steps": 5}), every_steps=5), tmp_path / "a"
    )
    spec = run_spec(devices=2, sharding="zero3", training={"steps": 1})
    run_ranks(2, train_run, saving(spec, start_from=str(tmp_path / "a"), at_end=False), tmp_path / "b")
    first, fifth = losses(tmp_path / "a")[1], losses(tmp_path / "a")[5]
    assert losses(tmp_path / "b")[1] < (first + fifth) / 2
    with pytest.raises(RuntimeError, match="contains no complete checkpoint"):
        run_ranks(1, train_run, saving(run_spec(), start_from=str(tmp_path / "b")), tmp_path / "c")


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    run_ranks(1, train_run, saving(run_spec(training={"steps": 1}), every_steps=1), tmp_path)
    other = run_spec(model=GPT | {"ffn_hidden_size": 64})
    with pytest.raises(RuntimeError, match=f"{SpecError.__name__}: .*ffn_hidden_size = 64.*model has 128"):
        run_ranks(1, train_run, other, tmp_path)


@pytest.mark.long_except("2-4*")
@pytest.mark.parametrize(
    ("keep", "keep_every", "left"),
    [(1, None, [10]), (2, None, [10, 9]), (2, 4, [10, 9, 8, 4])],
)
def test_what_is_kept(tmp_path: Path, keep: int, keep_every: int | None, left: list[int]) -> None:
    spec = saving(run_spec(layout=FEW), every_steps=1, keep=keep, keep_every=keep_every)
    run_ranks(1, train_run, spec, tmp_path)
    assert [files.step_of(path) for path in files.found(tmp_path)] == left
    assert not list((tmp_path / CHECKPOINTS).glob(".*"))


def test_by_the_clock(tmp_path: Path) -> None:
    spec = saving(run_spec(devices=2, layout=FEW, training=SIX), every_minutes=1e-6)
    run_ranks(2, train_run, spec, tmp_path)
    assert [record["step"] for record in records(tmp_path, "checkpoint")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.long_except("loss")
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_skipped_and_end_the_run_in_the_end(tmp_path: Path, what: str) -> None:
    spec = run_spec(devices=2, sharding="zero3", layout=FEW, training={"steps": 7})
    spec = saving(spec, every_steps=2)
    spec = spec.model_copy(update={"watch": spec.watch.model_copy(update={"stop_after_bad_steps": 3})})
    ends = run_ranks(2, spoilt_run, spec, tmp_path, 3, what)
    last = files.path_of(tmp_path, 6)
    message = "3 steps in a row were skipped: loss or gradient was not finite; the last good checkpoint is"
    assert ends == [f"failed: {message} {last}"] * 2
    assert [record["step"] for record in records(tmp_path, "step") if record["skipped"]] == [4, 5, 6]
    # They changed nothing: the weights of step 3.
    assert files.read_manifest(last).state["updates"] == 3
    run_ranks(2, train_run, spec, tmp_path)
    run_ranks(2, train_run, spec, tmp_path / "whole")
    assert list(losses(tmp_path).values())[:3] == list(losses(tmp_path / "whole").values())[:3]


def test_as_often_as_failures_and_the_cost_of_a_checkpoint_ask_for(tmp_path: Path) -> None:
    """On a machine that fails all the time: one after the other, each as soon as the last is written."""
    spec = saving(run_spec(devices=2, layout=FEW, training=SIX), every_minutes="auto")
    failing, rare = (
        spec.machine.model_copy(
            update={"reliability": ReliabilitySpec(node_mtbf_s=mtbf_s, write_bytes_per_s_per_node=1e12)}
        )
        for mtbf_s in (1e-9, 1e9)
    )
    run_ranks(2, train_run, spec.model_copy(update={"machine": failing}), tmp_path)
    saved = [record["step"] for record in records(tmp_path, "checkpoint")]
    assert saved[0] == 1 and saved[-1] == 6
    run_ranks(2, train_run, spec.model_copy(update={"machine": rare}), tmp_path / "rare")
    assert [record["step"] for record in records(tmp_path / "rare", "checkpoint")] == [6]
