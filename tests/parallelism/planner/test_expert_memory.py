"""Memory of models with experts, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.sharding import SHARDING_PRESETS, Preset
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner import activations
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.expert_hops import buffers, rows
from frontrunner.parallelism.planner.expert_stages import fullest, sparse_layers
from frontrunner.parallelism.planner.memory import memory, stage_memory, stage_parameters
from frontrunner.parallelism.planner.parameters import stage_units
from support.experts import MIXED, MIXTRAL, as_model, balanced, planned


@pytest.mark.parametrize("expert", [1, 2, 8])
@pytest.mark.parametrize("preset", [name for name in SHARDING_PRESETS if name != "zeropp"])
def test_states_are_cut_by_the_holders_of_the_same_experts(preset: Preset, expert: int) -> None:
    """Sixteen devices on two nodes; Mixtral's 8 experts of 32 layers, and everything else."""
    workload, c = planned(MIXTRAL, nodes=2, preset=preset, layout={"expert": expert})
    found = memory(workload, c)
    experts = 32 * 8 * 3 * 4096 * 14336
    rest = 2 * 32000 * 4096 + 32 * (4096 * (2 * 4096 + 2 * 1024) + 8 * 4096 + 2 * 4096) + 4096
    w, g, o = {
        "ddp": (1, 1, 1),
        "zero1": (1, 1, 16),
        "zero2": (1, 16, 16),
        "zero3": (16, 16, 16),
        "hsdp": (8, 8, 8),
        "three_level": (2, 8, 16),
    }[preset]
    # A block of n ranks has n / expert copies of the experts to cut, and at least one.
    assert found.weights[0] == pytest.approx(2 * (rest / w + experts / max(w, expert)))
    assert found.gradients[0] == pytest.approx(4 * (rest / g + experts / max(g, expert)))
    assert found.optimizer[0] == pytest.approx(12 * (rest / o + experts / max(o, expert)))


@pytest.mark.parametrize(
    ("tensor", "pipeline", "virtual"), [(1, 1, 1), (2, 3, 1), (4, 6, 1), (2, 3, 2), (1, 2, 3)]
)
def test_stages_hold_what_units_say(tensor: int, pipeline: int, virtual: int) -> None:
    workload, c = planned(MIXED, nodes=1)
    one = np.ones(1)
    cut = replace(
        c, tensor=one * tensor, pipeline=one * pipeline, virtual_stages=one * virtual, expert=one * 4
    )
    counts = []
    for index in range(pipeline):
        stage = stage_parameters(workload, cut, one * index)
        exact = stage_units(workload.model, tensor, pipeline, index, 4, virtual)
        assert stage.numel[0] == pytest.approx(exact.numel - exact.experts, rel=1e-9)
        assert stage.experts[0] == pytest.approx(exact.experts, rel=1e-9)
        counts.append(stage.sparse_count[0])
    assert sum(counts) == 3
    assert fullest(workload.model, cut)[0] == counts.index(max(counts))


@pytest.mark.parametrize("first", [0, 1, 3, 5])
@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize(("pipeline", "virtual"), [(4, 1), (6, 1), (12, 1), (3, 2), (2, 3)])
def test_the_fullest_device_is_that_of_any_stage(first: int, every: int, pipeline: int, virtual: int) -> None:
    experts = MIXED["experts"] | {"first_dense_layers": first, "every": every, "ffn_hidden_size": 14336}
    workload, c = planned(MIXED | {"experts": experts}, nodes=12, layout={"pipeline": 3})
    one = np.ones(1)
    cut = replace(c, pipeline=one * pipeline, virtual_stages=one * virtual, grad_accum_steps=24 * one)
    stages = [stage_memory(workload, cut, one * index).peak[0] for index in range(pipeline)]
    assert memory(workload, cut).peak[0] == max(stages)
    counts = [float(sparse_layers(workload.model, cut, one * index)[0]) for index in range(pipeline)]
    assert fullest(workload.model, cut)[0] == counts.index(max(counts))


def test_a_layer_keeps_two_rows_of_each_token() -> None:
    """Mixtral with balanced experts, in 16 bits. Router: logits and scores of 8 experts, ids and weights.
    Rows: input, output, and three widths of the MLP, which two tensor ranks halve."""
    for tensor in (1, 2):
        workload, c = balanced(*planned(MIXTRAL, nodes=1, layout={"tensor": tensor, "expert": 2}))
        more = activations.layer_interior(workload, c, sparse=True) - activations.layer_interior(workload, c)
        tokens = 2048
        router = 2 * 4 * 8 + 2 * (4 + 4)
        kept = 2 * 2 * (2 * 4096 + 3 * 14336 // tensor)
        assert more[0] == pytest.approx(tokens * (router + kept - 2 * 3 * 14336 // tensor), rel=1e-12)


def test_the_busiest_rank_has_more_rows_if_experts_are_cut() -> None:
    found = {}
    for expert in (1, 8):
        workload, c = planned(MIXTRAL, nodes=1, layout={"expert": expert})
        found[expert] = rows(workload, c)[0]
    assert found[1] == 2 * 2048
    assert found[8] == found[1] * workload.profile.expert_imbalance > found[1]


def test_shared_experts_are_one_dense_mlp() -> None:
    workload, c = balanced(*planned(MIXED, nodes=1))
    bare = as_model(MIXED | {"experts": MIXED["experts"] | {"shared_experts": 0, "shared_gate": False}})
    without = replace(workload, model=bare)
    found = [activations.layer_interior(each, c, sparse=True)[0] for each in (workload, without)]
    assert found[0] - found[1] == 2048 * 2 * 3 * 1024


def test_buffers_of_messages_are_what_all_hops_send_and_receive() -> None:
    """Two of 8 experts over 2 nodes of 4 counterparts: a token needs 2 (1 - 6 / 28) nodes and 8 (1 - 21 / 28)
    devices."""
    one = np.ones(1)
    workload, c = balanced(*planned(MIXTRAL, nodes=2, layout={"tensor": 2}))
    c = replace(c, expert=8 * one)
    row = 2 * 4096 + 2 * (4 + 4)
    assert buffers(workload, c)[0] == pytest.approx(2048 * 2 * row * (2 * 22 / 28 + 8 * 7 / 28))
    flat = replace(c, flat_dispatch=one)
    assert buffers(workload, flat)[0] == pytest.approx(2048 * 2 * row * 8 * 7 / 28)
    assert buffers(workload, replace(c, expert=one))[0] == 0


def test_a_layer_is_gathered_with_its_experts() -> None:
    """Two layers' units in 16 bits, from eight ranks that hold four copies of two experts each."""
    workload, c = planned(MIXTRAL, nodes=2, preset="hsdp", layout={"expert": 4})
    one = np.ones(1)
    whole = replace(c, weights=one, secondary=one)
    more = memory(workload, c).buffers[0] - memory(workload, whole).buffers[0]
    attention = 4096 * (2 * 4096 + 2 * 1024) + 2 * 4096 + 8 * 4096
    assert more == pytest.approx(2 * 2 * (attention + 2 * 3 * 4096 * 14336))


def test_one_expert_is_a_dense_model() -> None:
    """But for the router, of 4096 parameters a layer."""
    one_expert = MIXTRAL | {"experts": {"num_experts": 1, "experts_per_token": 1, "ffn_hidden_size": 14336}}
    dense = MIXTRAL | {"experts": None}
    for preset in SHARDING_PRESETS:
        found, expected = (memory(*planned(model, nodes=2, preset=preset)) for model in (one_expert, dense))
        for part in ("weights", "gradients", "optimizer"):
            assert getattr(found, part)[0] == pytest.approx(getattr(expected, part)[0], rel=1e-4)


CUTS: list[dict[str, Any]] = [
    {"nodes": 2, "layout": {"expert": 8}},
    {"nodes": 2, "layout": {"expert": 8, "tensor": 2}},
    {"nodes": 2, "layout": {"expert": 8, "tensor": 2, "dispatch": "flat"}},
    {"nodes": 4, "layout": {"expert": 2}, "preset": "three_level"},
    {"nodes": 4, "layout": {"expert": 4}, "preset": "zero3"},
    {"nodes": 4, "layout": {"expert": 4, "pipeline": 2}, "preset": "hsdp"},
    {"nodes": 4, "layout": {"expert": 8, "tensor": 4}, "preset": "zeropp"},
    {"nodes": 2, "layout": {"expert": 1}, "preset": "zeropp"},
]


def layout_of(workload: Workload, c: Candidates) -> Layout:
    sizes = (
        "tensor",
        "pipeline",
        "virtual_stages",
        "weights",
        "gradients",
        "optimizer",
        "secondary",
        "expert",
    )
    numbers: dict[str, Any] = {name: int(getattr(c, name)[0]) for name in sizes}
    devices = int(c.data[0]) * numbers["tensor"] * numbers["pipeline"]
    machine = workload.machine
    return Layout(
        nodes=devices // machine.devices_per_node,
        devices_per_node=machine.devices_per_node,
        devices_per_package=machine.devices_per_package,
        ties_embeddings=False,
        **numbers,
    )
