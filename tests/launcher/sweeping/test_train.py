"""A sweep whose trials truly train, and truly run out of memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("optuna")
pytest.importorskip("megatron.core")

from frontrunner.launcher.sweeping.backends import Local
from frontrunner.launcher.sweeping.controller import Controller, opened
from frontrunner.launcher.sweeping.samplers import strategy
from frontrunner.launcher.sweeping.space import points
from frontrunner.launcher.sweeping.store import EARLY_STOP, OUT_OF_MEMORY
from support.sweeps import small_sweep

BASE = """\
model: {num_layers: 1, hidden_size: 64, num_heads: 2, vocab_size: 1024, max_position_embeddings: 32}
machine:
  extends: workstation
  num_nodes: 1
  packages_per_node: 1
  devices_per_package: 1
  device: {kind: cpu, memory_bytes: 150000000, limit_memory: true}
data: synthetic
layout: {micro_batch_size: 1}
training: {seq_len: 32, global_batch_size: 512, steps: 10, precision: float32}
"""
SWEEP = """\
base: base.yaml
space:
  layout.micro_batch_size: [16, 512, 1]
budget: {trials: 3}
sampler: grid
steps: 10
early_stop: 0.7
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the limit on a CPU process is Linux's")
def test_trials_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comes to its end, one finds no memory for its 512 sequences, and one of the same batch in
    micro-batches of one is ended because it is slow."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "base.yaml").write_text(BASE)
    sweep = small_sweep(tmp_path, SWEEP)
    known = points(sweep)
    plan = strategy(sweep, known, planner=False)  # it would leave out what does not fit
    with opened(tmp_path / "folder", sweep) as store:
        Controller(sweep, tmp_path / "folder", known, plan, Local(), store, print).run()
        trials = store.trials()
    assert [trial.failure for trial in trials] == [None, OUT_OF_MEMORY, EARLY_STOP]
    complete, _, stopped = (trial.objective for trial in trials)
    assert complete and stopped and stopped < 0.7 * complete
