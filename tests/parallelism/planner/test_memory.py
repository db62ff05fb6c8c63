"""Memory by formula: states of the lattice, stages, micro-batches in flight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.load import load_run
from frontrunner.configs.sharding import SHARDING_PRESETS
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.activations import kept_per_layer, layer_interior
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.communicator_count import communicators
from frontrunner.parallelism.planner.memory import in_flight, memory, stage_memory, stage_parameters
from frontrunner.parallelism.planner.parameters import stage_units
from support.specs import run_spec


def planned(run: str, *overrides: str) -> tuple[Workload, Candidates]:
    spec = load_run(run, overrides).spec
    return Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))


@pytest.mark.parametrize("preset", SHARDING_PRESETS)
def test_states_are_the_parameters_cut_by_the_degrees(preset: str) -> None:
    wires = "{weights: bfloat16, gradients: bfloat16, network: bfloat16}"
    run = ("gpt-1.4b", 2)
    workload, c = planned(
        "gpt-22b-frontier",
        f"model={run[0]}",
        f"nodes={run[1]}",
        "layout.pipeline=1",
        "training.global_batch_size=16",
        f"layout.sharding={{preset: {preset}, wire: {wires}}}",
    )
    found = memory(workload, c)
    psi = float(stage_units(workload.model).numel)
    w, g, o = {
        "ddp": (1, 1, 1),
        "zero1": (1, 1, 16),
        "zero2": (1, 16, 16),
        "zero3": (16, 16, 16),
        "zeropp": (16, 16, 16),
        "hsdp": (8, 8, 8),
        "three_level": (2, 8, 16),
    }[preset]
    secondary = 2 * psi / 8 if preset == "zeropp" else 0.0
    assert found.weights[0] == pytest.approx(2 * psi / w + secondary)
    assert found.gradients[0] == pytest.approx(4 * psi / g)
    assert found.optimizer[0] == pytest.approx(12 * psi / o)


@pytest.mark.parametrize("model", ["gpt-175b", "llama-3-8b", "gpt-neox-20b"])
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (8, 1), (4, 4), (2, 2)])
def test_stages_hold_what_is_built(model: str, tensor: int, pipeline: int) -> None:
    workload, c = planned(
        "gpt-22b-frontier", f"model={model}", "layout.pipeline=4", "nodes=2", "layout.tensor=2"
    )
    for index in {0, pipeline // 2, pipeline - 1}:
        cut = replace(c, tensor=np.array([float(tensor)]), pipeline=np.array([float(pipeline)]))
        stage = stage_parameters(workload, cut, np.array([float(index)]))
        exact = stage_units(workload.model, tensor, pipeline, index)
        assert stage.numel[0] == pytest.approx(exact.numel, rel=1e-9), index


def test_micro_batches_in_flight() -> None:
    _, c = planned("gpt-22b-frontier")
    pipeline, many = np.array([8.0]), np.array([64.0])
    plain = replace(c, pipeline=pipeline, grad_accum_steps=many)
    assert [in_flight(plain, np.array([float(stage)]))[0] for stage in (0, 3, 7)] == [8, 5, 1]
    few = replace(plain, grad_accum_steps=np.array([3.0]))
    assert in_flight(few, np.zeros(1))[0] == 3
    # Megatron-LM's interleaved schedule warms up with 2 (p - 1) + (v - 1) p pieces on the first stage.
    interleaved = replace(plain, virtual_stages=np.array([4.0]))
    assert in_flight(interleaved, np.zeros(1))[0] == 2 * 7 + 3 * 8 + 1


@pytest.mark.parametrize(
    ("change", "less"),
    [
        ("layout.recompute=full", "layout.recompute=selective"),
        ("layout.recompute=selective", "layout.recompute=none"),
        ("layout.sequence_parallel=true", "layout.sequence_parallel=false"),
        ("layout.sharding={preset: zero3}", "layout.sharding={preset: three_level}"),
        ("layout.sharding={preset: three_level}", "layout.sharding={preset: ddp}"),
    ],
)
def test_what_saves_memory_saves_memory(change: str, less: str) -> None:
    base = ("gpt-22b-frontier", "layout.tensor=2", "layout.pipeline=1", "training.global_batch_size=640")
    saving, spending = (memory(*planned(*base, override)).peak[0] for override in (change, less))
    assert saving <= spending


def test_the_first_stage_has_most_in_flight_and_the_last_the_logits() -> None:
    workload, c = planned("gpt-175b-frontier")
    stages = [stage_memory(workload, c, np.array([float(index)])) for index in range(16)]
    activations = [float(stage.activations[0]) for stage in stages]
    assert activations[:15] == sorted(activations[:15], reverse=True)
    assert activations[15] > activations[14] - (activations[13] - activations[14])
    assert memory(workload, c).peak[0] == max(float(stage.peak[0]) for stage in stages)


def test_the_first_stage_keeps_the_mask_of_the_embeddings_dropout() -> None:
    """A byte a value of each micro-batch that has begun: Korthikanti et al. 2022, section 4.3."""
    workload, plain = planned("gpt-175b-frontier")
    masked = replace(workload, profile=replace(workload.profile, dropout=True))
    interleaved = replace(plain, virtual_stages=np.array([2.0]))
    few = replace(plain, grad_accum_steps=np.array([3.0]))
    for c, begun in ((plain, 16), (interleaved, 2 * 16 - 1), (few, 3)):
        first, second = (stage_memory(masked, c, np.array([float(index)])).activations[0] for index in (0, 1))
        bare = [stage_memory(workload, c, np.array([float(index)])).activations[0] for index in (0, 1)]
        more = (first - bare[0]) - (second - bare[1])
        assert more == pytest.approx(begun * 2048 * 12288)


@pytest.mark.parametrize(
    ("tensor", "sequence", "recompute", "hidden_bytes", "scores"),
    [
        (1, 0, 0, 34, 5),
        (4, 0, 0, 10 + 24 / 4, 5 / 4),
        (4, 1, 0, 34 / 4, 5 / 4),
        (4, 1, 1, 34 / 4, 0),
        (4, 0, 2, 2, 0),
        (4, 1, 2, 2 / 4, 0),
    ],
)
def test_a_layer_keeps_what_korthikanti_et_al_count(
    tensor: int, sequence: int, recompute: int, hidden_bytes: float, scores: float
) -> None:
    """Equations 1 to 6: bytes of s b h, and of a s^2 b."""
    workload, c = planned("gpt-175b-frontier")
    workload = replace(workload, profile=replace(workload.profile, dropout=True, fused_attention=False))
    values = {"tensor": tensor, "sequence_parallel": sequence, "recompute": recompute}
    cut = replace(c, **{key: np.array([float(value)]) for key, value in values.items()})
    expected = 2048 * 12288 * hidden_bytes + 96 * 2048**2 * scores
    assert kept_per_layer(workload, cut)[0] == pytest.approx(expected)


def test_gathered_weights_are_two_units_and_their_messages() -> None:
    cut = ("gpt-22b-frontier", "layout.pipeline=1", "layout.sharding={preset: hsdp}")
    workload, c = planned(*cut)
    whole = replace(c, weights=np.ones(1), secondary=np.ones(1))
    unit = float(stage_units(workload.model).embedding)
    layer = (stage_units(workload.model).layers - 2 * 6144 - 2048 * 6144) / 48
    more = memory(workload, c).buffers[0] - memory(workload, whole).buffers[0]
    assert more == pytest.approx(2 * 2 * max(unit, layer), rel=0.05)
    quantised = replace(c, weight_wire=np.array([1.0]))
    assert memory(workload, quantised).buffers[0] - memory(workload, c).buffers[0] == pytest.approx(more / 4)


def test_each_communicator_has_buffers() -> None:
    workload, c = planned("gpt-175b-frontier")
    bare = replace(workload, profile=replace(workload.profile, communicator_bytes=0.0))
    count = communicators(workload, c)[0]
    assert memory(workload, c).residual[0] - memory(bare, c).residual[0] == count * 256 * 2**20


def test_many_candidates_at_once_are_each_judged_alone() -> None:
    workload, one = planned("gpt-175b-frontier")
    other = replace(one, recompute=np.array([0.0]), micro_batch_size=np.array([4.0]))
    both: Any = Candidates(
        **{key: np.concatenate([getattr(one, key), getattr(other, key)]) for key in one.__dict__}
    )
    peaks = memory(workload, both).peak
    assert peaks[0] == memory(workload, one).peak[0]
    assert peaks[1] == memory(workload, other).peak[0]


def test_ranks_that_share_a_key_hold_all_of_it() -> None:
    """Llama's two key and value heads on two tensor ranks and on four, in bytes of a sequence and layer."""
    interior = {}
    for tensor in (2, 4):
        spec = run_spec(model="llama", devices=tensor, layout={"tensor": tensor})
        workload, candidates = Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))
        interior[tensor] = float(layer_interior(workload, candidates)[0])
    tokens, width, query, head, ffn, heads = 16, 4, 32, 8, 96, 4
    per_token = {
        2: width * (query + head * 2 + 3 * ffn // 2),
        4: width * (query // 2 + head * 2 + 3 * ffn // 4),
    }
    rows = {tensor: 4 * heads // tensor for tensor in (2, 4)}
    expected = tokens * (per_token[2] - per_token[4] + rows[2] - rows[4])
    assert interior[2] - interior[4] == expected
