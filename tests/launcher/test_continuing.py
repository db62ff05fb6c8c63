"""What a continued run says before it begins, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load import dump
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.continuing import prospects
from frontrunner.parallelism.corpus import write_index
from frontrunner.parallelism.fingerprint import fingerprint
from frontrunner.run_folder import checkpoints, files
from frontrunner.run_folder.checkpoints import Manifest
from frontrunner.run_folder.record_writer import RecordWriter
from support.counters import COUNTERS
from support.specs import run_spec


def corpus(folder: Path, first: int = 0) -> dict[str, Any]:
    """A corpus of 640 tokens that count up from ``first``, modulo 50, and its tokenizer."""
    ((np.arange(640) + first) % 50).astype(np.uint16).tofile(folder / "train.bin")
    write_index(folder / "train.idx", np.dtype(np.uint16), np.full(10, 64, np.int32))
    (folder / "tokenizer.json").write_text(f"{{{first}}}")
    return {"train": str(folder / "train"), "tokenizer": str(folder / "tokenizer.json")}


def begun(
    folder: Path, spec: RunSpec, *, saved: int | None = 5, done: int = 7, finished: bool = False
) -> Path:
    run_dir = folder / "run"
    run_dir.mkdir()
    (run_dir / files.SPEC).write_text(dump(spec))
    with RecordWriter(run_dir) as records:
        records.write("header", time=0.0, spec=spec.model_dump(mode="json"))
        records.write("step", step=done)
    if saved is not None:
        path = checkpoints.path_of(run_dir, saved)
        path.mkdir(parents=True)
        state = COUNTERS | {"corpus": fingerprint(spec)}
        checkpoints.write_manifest(path, Manifest(saved, spec.model_dump(mode="json"), state, ()))
    return run_dir


def with_(spec: RunSpec, section: str, **values: Any) -> RunSpec:
    data = spec.model_dump()
    return RunSpec.model_validate(data | {section: data[section] | values})


def test_changes_are_said_before_it_begins(tmp_path: Path) -> None:
    spec = run_spec()
    run_dir = begun(tmp_path, spec)
    assert prospects(run_dir, spec) == ["goes on after step 5 of 10"]
    changed = with_(with_(spec, "training", steps=30, global_batch_size=32), "layout", micro_batch_size=2)
    assert sorted(line for line in prospects(run_dir, changed) if line.startswith("changes")) == [
        "changes layout.micro_batch_size: 1 -> 2",
        "changes training.global_batch_size: 16 -> 32",
        "changes training.steps: 10 -> 30",
    ]


def test_no_checkpoint_is_said_or_refused(tmp_path: Path) -> None:
    spec = run_spec(training={"steps": 7})
    run_dir = begun(tmp_path, spec, saved=None)
    assert prospects(run_dir, spec) == ["has no checkpoint: its 7 steps so far are taken again"]
    with RecordWriter(run_dir) as records:
        records.write("summary", steps=7)
    with pytest.raises(SpecError, match="is complete after 7 steps"):
        prospects(run_dir, spec)
    with pytest.raises(SpecError, match="wrote no checkpoint: its 7 steps cannot be continued"):
        prospects(run_dir, with_(spec, "training", steps=9))


def test_another_model_is_refused(tmp_path: Path) -> None:
    spec = run_spec()
    run_dir = begun(tmp_path, spec)
    with pytest.raises(SpecError, match="the checkpoint's model has 4"):
        prospects(run_dir, with_(spec, "model", num_layers=2))


def test_losses_of_experts_may_change_but_not_the_experts(tmp_path: Path) -> None:
    """As a warning of a collapsed router advises it."""
    spec = run_spec(model="sparse")
    run_dir = begun(tmp_path, spec)

    def prospects_with(**keys: float) -> list[str]:
        assert spec.model.experts is not None
        return prospects(run_dir, with_(spec, "model", experts=spec.model.experts.model_copy(update=keys)))

    assert "changes model.experts.aux_loss: 0.05 -> 0.1" in prospects_with(aux_loss=0.1)
    with pytest.raises(SpecError) as refused:
        prospects_with(num_experts=16)
    assert [violation.path for violation in refused.value.violations] == ["model.experts.num_experts"]
    with pytest.raises(SpecError, match="the checkpoint's model has 8"):
        prospects(run_dir, with_(spec, "model", experts=None))


def test_replaced_corpus_is_refused(tmp_path: Path) -> None:
    spec = run_spec(data=corpus(tmp_path))
    run_dir = begun(tmp_path, spec)
    corpus(tmp_path)  # written again, the same
    assert prospects(run_dir, spec) == ["goes on after step 5 of 10"]
    corpus(tmp_path, first=1)
    with pytest.raises(SpecError) as refused:
        prospects(run_dir, spec)
    assert [violation.path for violation in refused.value.violations] == ["data.train", "data.tokenizer"]
    (tmp_path / "other").mkdir()
    elsewhere = run_spec(data=corpus(tmp_path / "other", first=1))
    assert f"changes data.train: {tmp_path}/train -> {tmp_path}/other/train" in prospects(run_dir, elsewhere)


def test_fingerprint_sees_one_token_of_a_small_corpus(tmp_path: Path) -> None:
    spec = run_spec(data=corpus(tmp_path))
    before = fingerprint(spec)
    tokens = np.fromfile(tmp_path / "train.bin", np.uint16)
    tokens[300] += 1
    tokens.tofile(tmp_path / "train.bin")
    assert fingerprint(spec) != before
    assert fingerprint(run_spec()) is None


def test_what_changes_do_to_the_learning_rate_is_said(tmp_path: Path) -> None:
    """cosine(pi * 2/3) and cosine(pi * 3/7) of one warm-up step, from 1e-3 to 1e-4: worked out by hand."""
    optimizer = {"learning_rate": 1e-3, "min_learning_rate": 1e-4, "warmup_steps": 1, "decay": "cosine"}
    spec = run_spec(training={"steps": 4}, optimizer=optimizer)
    run_dir = begun(tmp_path, spec, saved=4, done=4)
    longer = with_(spec, "training", steps=8)
    assert prospects(run_dir, longer)[2:] == [
        "goes from learning rate 0.000325 (step 4) to 0.0006501 (step 5), where it would have gone on with "
        "0.0001: its decay now ends at step 8, not 4 (to keep it: -o optimizer.decay_steps=4)"
    ]
    assert len(prospects(run_dir, with_(longer, "optimizer", decay_steps=4))) == 3  # as advised: only changes
    (said,) = (
        line
        for line in prospects(run_dir, with_(longer, "optimizer", decay="constant"))
        if "goes from" in line
    )
    assert "to 0.001 (step 5)" in said


def test_another_batch_is_said(tmp_path: Path) -> None:
    spec = run_spec()
    run_dir = begun(tmp_path, spec)
    tokens = 16 * spec.training.seq_len
    changed = with_(spec, "training", global_batch_size=32)
    assert prospects(run_dir, changed)[-1] == (
        f"takes 2 times the batch: {2 * tokens:,} tokens a step, not {tokens:,}; "
        "the learning rate is not adapted to that"
    )
