"""Measured traces: the tracks and parts of the predicted ones, and nothing if no profile is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.runtime.profile import measured_trace
from frontrunner.run_folder import files
from support.profiles import REQUEST, profiled
from support.ranks import run_ranks
from support.specs import run_spec
from support.traces import check_events, slices

CLUSTER: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
#: Layouts, and what rank 1 does in them besides computing.
CASES: dict[str, tuple[dict[str, Any], set[tuple[str, str]]]] = {
    "three levels": (
        {"sharding": "three_level", "layout": {"micro_batch_size": 1, "recompute": "full"}},
        {
            ("weights (package)", names.ALL_GATHER),
            ("gradients (node)", names.REDUCE_SCATTER),
            ("reduction (network)", names.REDUCE_SCATTER),
            ("update (network)", names.ALL_GATHER),
            ("update (node)", names.ALL_GATHER),
            ("sums (network)", names.ALL_REDUCE),
            (names.COMPUTE, names.RECOMPUTE),
        },
    ),
    "tensor and stages": (
        {"layout": {"tensor": 2, "pipeline": 2, "virtual_stages": 2, "micro_batch_size": 2}},
        {
            ("tensor (package)", names.ALL_REDUCE),
            ("pipeline (network)", names.SEND),
            ("pipeline (network)", names.RECEIVE),
        },
    ),
}
COMPUTING = {(names.COMPUTE, part) for part in (names.FORWARD, names.BACKWARD, names.OPTIMIZER)}


@pytest.mark.parametrize("name", CASES)
def test_a_profile_has_the_tracks_of_a_plan(name: str, tmp_path: Path) -> None:
    keys, wanted = CASES[name]
    spec = run_spec(**CLUSTER, training={"global_batch_size": 16, "steps": 4}, **keys)
    assert not any(run_ranks(8, profiled, spec, tmp_path, REQUEST))
    (written,) = tmp_path.glob("profile/*")
    assert written == files.profile_file(tmp_path, "2-3", 1)
    found = json.loads(written.read_text())
    events = found["traceEvents"]
    check_events(events)
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    seen = {(threads[e["pid"], e["tid"]], e["name"]) for e in events if e["ph"] == "X"}
    assert seen >= wanted | COMPUTING
    assert {thread for thread, _ in seen} <= set(names.TRACKS)
    step_us = found["metadata"]["step_time_s"] * 1e6
    last = max(e["ts"] + e["dur"] for e in events if e["ph"] == "X")
    assert last < 3 * step_us  # of two steps
    (stage,) = found["metadata"]["stages"]
    assert stage["rank"] == 1
    assert 0 < sum(stage["parts_s"].values()) < 1.01 * found["metadata"]["step_time_s"]
    for part in (names.FORWARD, names.BACKWARD):
        spans = [e["dur"] for e in slices(events, stage["stage"], names.COMPUTE) if e["name"] == part]
        assert sum(spans) / 2e6 == pytest.approx(stage["parts_s"][part], rel=1e-3)


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    spec = run_spec(**CLUSTER, training={"global_batch_size": 8, "steps": 4}, layout={"micro_batch_size": 1})
    assert not any(run_ranks(8, profiled, spec, tmp_path, None))
    assert not list(tmp_path.iterdir())


def test_kernels_count_for_the_range_that_launched_them() -> None:
    """On a GPU: also those that autograd launches on its own thread, and none of the host's waiting."""

    def span(name: str, start: int, length: int, **args: object) -> dict[str, Any]:
        return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": length, "args": args}

    def kernel(launch: int, start: int, number: int) -> list[dict[str, Any]]:
        launched = span("launch", launch, 1, correlation=number) | {"cat": "cuda_runtime", "tid": 7}
        return [launched, span("gemm", start, 10, correlation=number) | {"cat": "kernel"}]

    events = [
        span("frontrunner/step/1", 0, 200),
        span("frontrunner/compute/backward", 10, 40),
        span("frontrunner/weights (node)/all-gather", 20, 5),
        span("frontrunner/waiting/weights", 30, 10),
        *kernel(12, 50, 1),
        *kernel(22, 60, 2),
        *kernel(45, 90, 3),
        *kernel(150, 160, 4),
    ]
    spec = run_spec(**CLUSTER, training={"global_batch_size": 8, "steps": 4}, layout={"micro_batch_size": 1})
    found = json.loads(measured_trace(events, spec, ProfileRequest(1, 1, 0)))["traceEvents"]
    shown = {e["name"]: (e["ts"], e["dur"]) for e in found if e["ph"] == "X"}
    assert shown == {names.BACKWARD: (50, 50), names.ALL_GATHER: (60, 10)}
