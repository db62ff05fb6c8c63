"""What ours takes the place of inside megatron-core: there in each version, and put back."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import megatron.core.tensor_parallel.layers as layers
import megatron.core.tensor_parallel.mappings as mappings
import megatron.core.tensor_parallel.random as random
import torch

from frontrunner.parallelism.runtime.megatron_inside import tensor_parallel_collectives, use_random_states
from frontrunner.parallelism.versions import version


def gather() -> None: ...


def scatter() -> None: ...


def named() -> list[tuple[object, object]]:
    return [(m.dist_all_gather_func, m.dist_reduce_scatter_func) for m in (layers, mappings)]


def test_collectives_are_put_back_whatever_happens() -> None:
    before = named()
    with pytest.raises(ZeroDivisionError), tensor_parallel_collectives(gather, scatter):
        assert named() == [(gather, scatter)] * 2
        _ = 1 / 0
    assert named() == before


def test_a_name_that_a_version_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what is replaced is not replaced either."""
    monkeypatch.delattr(mappings, "dist_reduce_scatter_func")
    said = (
        r"megatron-core \S+ has no megatron\.core\.\S+\.mappings\.dist_reduce_scatter_func; .* 0\.16 to 0\.19"
    )
    with pytest.raises(RuntimeError, match=said), tensor_parallel_collectives(gather, scatter):
        pass
    monkeypatch.delattr(random, "_CUDA_RNG_STATE_TRACKER_INITIALIZED")
    tracker = random._CUDA_RNG_STATE_TRACKER
    with pytest.raises(RuntimeError, match="_CUDA_RNG_STATE_TRACKER_INITIALIZED"):
        use_random_states(object())
    assert random._CUDA_RNG_STATE_TRACKER is tracker


def test_a_rank_starts_no_program_for_its_imports_and_imports_no_tracker(tmp_path: Path) -> None:
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\necho started >> {tmp_path}/started\n")
    git.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env.pop("NO_VCS_VERSION", None)  # set here by the same import
    code = "import sys, frontrunner.parallelism.runtime.train; print(*sys.modules)"
    command = [sys.executable, "-W", "ignore", "-c", code]
    imported = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    unused = {"tensorboard", "torch.utils.tensorboard", "wandb"}
    if torch.version.cuda is None and torch.version.hip is None:
        unused.add("torch._dynamo")
        if (version("megatron-core") or "").startswith("0.16."):  # others need it themselves
            unused.add("triton")
    assert not unused & {*imported}
    assert not (tmp_path / "started").exists()


def test_users_do_not_hear_of_other_classes(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("megatron.core.models.gpt.gpt_model")
    log.warning("GPTModel IS DEPRECATED. New features go elsewhere.")
    log.warning("something else")
    assert caplog.messages == ["something else"]
