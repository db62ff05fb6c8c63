"""Bytes of tokens on their way to experts, against every choice of experts followed one by one."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from typing import Any

import pytest

from frontrunner.configs.experts import ExpertsSpec
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.dispatch import dispatch
from frontrunner.parallelism.planner.parameters import stage_units
from frontrunner.parallelism.planner.routing import expected_copies
from frontrunner.parallelism.planner.traffic import traffic
from support.specs import LLAMA, run_spec

EXPERTS = {"num_experts": 8, "experts_per_token": 3, "ffn_hidden_size": 48}
HIDDEN, CHOSEN = 32, 3


def placed(expert: int, nodes: int, **layout: Any) -> tuple[RunSpec, Layout]:
    """Nodes of two packages of two devices."""
    spec = run_spec(
        model=LLAMA | {"experts": EXPERTS},
        nodes=nodes,
        packages=2,
        devices=2,
        layout={"expert": expert, **layout},
        training={"global_batch_size": 24, "precision": "bfloat16"},
    )
    return spec, Layout.from_spec(spec)


def copies_by_hand(layout: Layout, source: int, flat: bool) -> list[tuple[int, int, Fraction]]:
    """From, to and how often on average, of one token of ``source``: each choice of experts is followed."""
    group = layout.groups(source).expert
    node, each = layout.devices_per_node, 8 // len(group)
    nodes = {rank // node for rank in group}
    choices = list(combinations(range(8), CHOSEN))
    found = []
    for chosen in choices:
        targets = {group[expert // each] for expert in chosen}
        if flat or len(nodes) == 1:
            sent = [(source, target) for target in targets]
        else:
            relays = {target // node: target // node * node + source % node for target in targets}
            sent = [(source, relay) for relay in relays.values()]
            sent += [(relays[target // node], target) for target in targets]
        found += [(one, other, Fraction(1, len(choices))) for one, other in sent if one != other]
    return found


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("wire", ["exact", "int8"])
@pytest.mark.parametrize("form", ["hierarchical", "flat"])
@pytest.mark.parametrize(
    ("expert", "nodes", "tensor"), [(8, 2, 1), (4, 2, 1), (4, 2, 2), (2, 2, 1), (1, 1, 1)]
)
def test_bytes_are_those_of_every_choice(
    expert: int, nodes: int, tensor: int, form: str, wire: str, recompute: str
) -> None:
    spec, layout = placed(
        expert, nodes, tensor=tensor, dispatch=form, dispatch_wire=wire, recompute=recompute
    )
    world, tokens, layers = layout.world_size, 16, 3
    forward, backward = ({level: Fraction(0) for level in LEVELS} for _ in range(2))
    crosses = len({rank // 4 for rank in layout.groups(0).expert}) > 1
    for source in range(world):
        for one, other, share in copies_by_hand(layout, source, form == "flat"):
            level = layout.level_between(one, other)
            coded = wire == "int8" and (level == "network" or (form == "flat" and crosses))
            values = HIDDEN + 4 if coded else 2 * HIDDEN
            there = values + CHOSEN * (4 + 4)
            forward[level] += share * layers * tokens * (there + values)
            backward[level] += share * layers * tokens * (values + values + CHOSEN * 4)
            if recompute == "full":
                backward[level] += share * layers * tokens * (there + values)
    found = dispatch(spec, layout, layers)
    for level in LEVELS:
        assert found.forward[level] == pytest.approx(float(forward[level]) / world)
        assert found.backward[level] == pytest.approx(float(backward[level]) / world)
    steps = found.step(2)
    assert steps["node"] == pytest.approx(2 * float(forward["node"] + backward["node"]) / world)


def test_copies_are_those_of_every_choice() -> None:
    for members in (1, 2, 4, 8):
        size = 8 // members
        choices = list(combinations(range(8), 3))
        mean = Fraction(sum(len({e // size for e in chosen}) for chosen in choices), len(choices))
        experts = ExpertsSpec.model_validate(EXPERTS)
        assert expected_copies(experts, members) == pytest.approx(float(mean))


def test_one_copy_a_node_instead_of_one_a_device() -> None:
    """DeepSeek-V3's 8 of 256 experts over 8 nodes of 8 devices: 5.3 nodes hold a token's experts, not 7.6."""
    experts = ExpertsSpec(num_experts=256, experts_per_token=8, ffn_hidden_size=2048)
    assert expected_copies(experts, 8) == pytest.approx(8 * (1 - (7 / 8) ** 8), rel=0.02)
    assert expected_copies(experts, 64) == pytest.approx(64 * (1 - (63 / 64) ** 8), rel=0.02)


def test_experts_are_gathered_and_reduced_over_their_holders() -> None:
    """Sixteen ranks on four nodes; eight hold all experts, so zero3 cuts each over two.

    What a ring or an exchange of n ranks sends is (n - 1) / n of the bytes; between nodes here.
    """
    spec = run_spec(
        model=LLAMA | {"experts": EXPERTS},
        nodes=4,
        packages=2,
        devices=2,
        sharding="zero3",
        layout={"expert": 8},
        training={"global_batch_size": 32},
    )
    layout, units = Layout.from_spec(spec), stage_units(spec.model, expert=8)
    dense = traffic(spec, layout, units._replace(experts=0, first_experts=0))
    both = traffic(spec, layout, units)
    one = 3 * 32 * 48  # the parameters of an expert; a rank has one of each of four layers
    assert units.experts == 4 * one
    half = one / 2 * 4  # bytes of a ring of two, of one layer
    more = {
        part: {level: getattr(both, part)[level] - getattr(dense, part)[level] for level in LEVELS}
        for part in both._fields
    }
    for part, expected in (("forward", 4 * half), ("kept", half), ("backward", 4 * half + 4 * half)):
        assert more[part] == pytest.approx({"package": 0, "node": 0, "network": expected}), part
    for part in ("reduction", "update"):
        assert more[part] == pytest.approx(dict.fromkeys(LEVELS, 0)), part
