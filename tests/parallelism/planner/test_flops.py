"""FLOPs by formula against torch's own counter on real steps."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from frontrunner.configs.schema import Recompute
from frontrunner.parallelism.planner.flops import hardware_flops_per_token, model_flops_per_token
from support.flops import counted_flops
from support.ranks import run_ranks
from support.specs import MODELS, run_spec


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_flops_are_those_that_torch_counts(model: str, recompute: Recompute) -> None:
    spec = run_spec(model=model, layout={"micro_batch_size": 4, "recompute": recompute})
    (counted,) = run_ranks(1, counted_flops, spec)
    tokens = spec.training.global_batch_size * spec.training.seq_len
    expected = tokens * hardware_flops_per_token(spec.model, spec.training.seq_len, recompute)
    assert counted == expected, counted / expected
    if recompute == "none":
        assert expected == tokens * model_flops_per_token(spec.model, spec.training.seq_len)
