"""Predicted traces: valid Chrome trace events, which add up to what the planner says."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from frontrunner.configs.load import load_run
from frontrunner.configs.sharding import SHARDING_PRESETS
from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.pipeline_order import Costs, order, run
from frontrunner.parallelism.planner.step_time import StepTime, step_time
from frontrunner.parallelism.planner.trace import predicted_trace
from support.traces import check_events, slices, uncovered

LAYOUTS = {
    "data": ("gpt-22b-frontier", "layout.pipeline=1", "layout.tensor=1", "training.global_batch_size=64"),
    "tensor": ("gpt-22b-frontier", "layout.tensor=8", "layout.pipeline=1", "training.global_batch_size=8"),
    "halves": (
        "gpt-22b-frontier",
        "layout.tensor=4",
        "layout.sequence_parallel=true",
        "layout.pipeline=2",
        "training.global_batch_size=16",
    ),
    "stages": ("gpt-175b-frontier", "training.global_batch_size=64"),
    "few micro-batches": ("gpt-175b-frontier", "training.global_batch_size=16"),
    "virtual": ("gpt-175b-frontier", "training.global_batch_size=64", "layout.virtual_stages=3"),
    "selective": ("gpt-175b-frontier", "training.global_batch_size=64", "layout.recompute=selective"),
} | {
    f"{preset} in {stages} stages": (
        "gpt-22b-frontier",
        "nodes=4",
        "layout.tensor=1",
        f"layout.pipeline={stages}",
        "training.global_batch_size=64",
        f"layout.sharding={{preset: {preset}}}",
    )
    for preset in SHARDING_PRESETS
    for stages in (1, 4)
}


def predicted(run_file: str, *overrides: str) -> tuple[dict[str, Any], StepTime, Layout]:
    spec = load_run(run_file, overrides).spec
    layout = Layout.from_spec(spec)
    workload = Workload.of(spec)
    text = predicted_trace(spec, layout, workload)
    return json.loads(text), step_time(workload, Candidates.of(spec, layout)), layout


@pytest.fixture(params=LAYOUTS)
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], StepTime, Layout]:
    return predicted(*LAYOUTS[request.param])


def test_events_are_valid_and_add_up(case: tuple[dict[str, Any], StepTime, Layout]) -> None:
    found, time, layout = case
    events = found["traceEvents"]
    check_events(events)
    total = float(time.total[0])
    assert max(one["ts"] + one.get("dur", 0) for one in events) / 1e6 == pytest.approx(total, rel=1e-6)
    assert min(one["ts"] for one in events) >= 0
    assert {one["pid"] for one in events} == set(range(layout.pipeline))
    computed, repeated = [], []
    for stage in range(layout.pipeline):
        parts = found["metadata"]["stages"][stage]["parts_s"]
        assert sum(parts.values()) == pytest.approx(total)
        spent = {
            name: sum(one["dur"] for one in slices(events, stage, names.COMPUTE) if one["name"] == name) / 1e6
            for name in (names.FORWARD, names.BACKWARD, names.RECOMPUTE, names.OPTIMIZER)
        }
        assert spent[names.FORWARD] + spent[names.BACKWARD] == pytest.approx(parts["compute"], rel=1e-6)
        assert spent[names.OPTIMIZER] == pytest.approx(float(time.optimizer[0]), rel=1e-6)
        computed.append(parts["compute"])
        repeated.append(spent[names.RECOMPUTE])
        # What the planner calls exposed is what no computing covers.
        idle = total - sum(spent.values())
        hidden = ("compute", "recompute", "optimizer")
        assert idle == pytest.approx(sum(parts[name] for name in parts if name not in hidden), rel=1e-5)
    assert max(computed) == pytest.approx(float(time.compute[0]))
    assert max(repeated) == pytest.approx(float(time.recompute[0]), rel=1e-6)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name.endswith("1 stages")])
def test_messages_stick_out_as_long_as_they_are_exposed(name: str) -> None:
    """Without stages to wait for, a lane that no computing covers is exposed communication."""
    found, time, _ = predicted(*LAYOUTS[name])
    events = found["traceEvents"]
    compute = [one for one in slices(events, 0, names.COMPUTE) if one["name"] != names.STRAGGLERS]
    end = compute[-1]["ts"] + compute[-1]["dur"]  # of the optimizer
    in_use = _sent(events, names.WEIGHTS, names.GRADIENTS, names.REDUCTION)
    waited = float((time.weights + time.gradients)[0])
    assert uncovered(in_use, compute) == pytest.approx(waited, rel=1e-4, abs=1e-7)
    late = [one for one in _sent(events, names.UPDATE) if one["ts"] > end - 0.01]
    assert uncovered(late, compute) == pytest.approx(float(time.update[0]), rel=1e-4, abs=1e-7)


def _sent(events: list[dict[str, Any]], *lanes: str) -> list[dict[str, Any]]:
    threads = [names.track(lane, level) for lane in lanes for level in names.LEVELS]
    return [one for thread in threads for one in slices(events, 0, thread)]


def test_flows_lead_from_stage_to_stage() -> None:
    found, _, layout = predicted(*LAYOUTS["virtual"])
    events = found["traceEvents"]
    flows = [one for one in events if one["ph"] in "sf"]
    begun = {one["id"]: one for one in flows if one["ph"] == "s"}
    ended = {one["id"]: one for one in flows if one["ph"] == "f"}
    assert begun.keys() == ended.keys()
    # Each micro-batch passes each boundary of chunks, once each way.
    boundaries = layout.pipeline * layout.virtual_stages - 1
    assert len(begun) == 2 * boundaries * 32
    for key, sender in begun.items():
        step = 1 if sender["name"] == "activation" else -1
        assert ended[key]["pid"] == (sender["pid"] + step) % layout.pipeline
        assert ended[key]["ts"] >= sender["ts"]


def test_a_machine_without_rates_has_no_step_to_draw() -> None:
    with pytest.raises(AssertionError, match="measured software"):
        predicted("quickstart")


def test_metadata_are_the_planners_parts() -> None:
    found, time, _ = predicted(*LAYOUTS["stages"])
    parts = found["metadata"]["step_time_parts_s"]
    assert parts == {f.name: float(getattr(time, f.name)[0]) for f in fields(time)}
    labels = [one["args"]["labels"] for one in found["traceEvents"] if one["name"] == "process_labels"]
    assert len(labels) == 16
    bubble = time.bubble[0] / time.total[0]
    assert labels[-1] == f"bubble {bubble:.1%} of the step"  # the last stage is the slowest


@pytest.mark.parametrize(
    ("stages", "chunks", "count"), [(1, 1, 3), (4, 1, 2), (4, 1, 9), (4, 3, 8), (2, 2, 2)]
)
def test_pieces_run_in_megatron_cores_order(stages: int, chunks: int, count: int) -> None:
    """Its own tables of warm-up and of chunks."""
    schedules = pytest.importorskip("megatron.core.pipeline_parallel.schedules")
    table = schedules.get_schedule_table(count, chunks, stages)

    class Group:
        def __init__(self, rank: int) -> None:
            self.rank = lambda: rank
            self.size = lambda: stages

    class Communicator:
        virtual_pipeline_model_parallel_size = chunks if chunks > 1 else None

    for stage in range(stages):
        Communicator.pp_group = Group(stage)  # type: ignore[attr-defined]
        *_, warm_up, left = schedules.get_pp_rank_microbatches(
            count, chunks, stages, p2p_communicator=Communicator
        )
        found = order(stage, stages, chunks, count)
        assert [(k, chunk) for back, k, chunk in found if not back] == table
        assert [(k, chunks - 1 - chunk) for back, k, chunk in found if back] == table
        steady = [False] * warm_up + [False, True] * left + [True] * warm_up
        assert [back for back, _, _ in found] == steady


def test_a_stage_waits_for_data_parallel_messages_only_if_it_waits_for_no_other_stage() -> None:
    """The length is m pieces of the slowest stage with what they wait for, and one pass through the rest."""
    plain, slow = (Costs(work, 2 * work, 0.25, 0.5, 0.125, 0.125) for work in (1.0, 1.5))
    done = run([plain, plain, slow], 1, 8)
    ends = [pieces[-1].sent + 0.125 for pieces in done]
    assert max(ends) == pytest.approx(8 * (4.5 + 0.5 + 0.75) + 2 * (3 + 0.5))
