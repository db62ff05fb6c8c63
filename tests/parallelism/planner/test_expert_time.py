"""Step time of models with experts: messages by their bytes, products by their shapes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from frontrunner.configs.schema import LinkSpec, LinksSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner import compute, expert_hops
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.collectives import Fabric
from frontrunner.parallelism.planner.compute import product
from frontrunner.parallelism.planner.dispatch import dispatch
from frontrunner.parallelism.planner.step_time import micro_batch, step_time
from support.experts import MIXED, MIXTRAL, QWEN3, balanced, planned, spec_of

#: Bytes a second of a package, a node and the network.
RATES = {"package": 100e9, "node": 40e9, "network": 7e9}


def without_latency(workload: Workload) -> Fabric:
    links = {level: LinkSpec(bandwidth_bytes_per_s=rate, latency_s=0) for level, rate in RATES.items()}
    return Fabric(workload.machine.model_copy(update={"links": LinksSpec(**links, groups=None)}), None)


@pytest.mark.parametrize("wire", ["exact", "int8"])
@pytest.mark.parametrize("form", ["hierarchical", "flat"])
@pytest.mark.parametrize(("expert", "tensor"), [(4, 1), (16, 1), (16, 2), (4, 8)])
def test_messages_take_what_their_bytes_take(expert: int, tensor: int, form: str, wire: str) -> None:
    """One hop after the other, and on each hop the slowest level. The bytes are those of :mod:`dispatch`."""
    layout: dict[str, Any] = {"expert": expert, "tensor": tensor, "dispatch": form, "dispatch_wire": wire}
    spec = spec_of(QWEN3, nodes=4, layout=layout | {"recompute": "full"})
    workload, c = balanced(Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec)))
    found = micro_batch(workload, c, np.zeros(1), without_latency(workload))
    sent = dispatch(spec, Layout.from_spec(spec), 48)
    ranks = Layout.from_spec(spec).groups(0).expert
    hops = Layout.from_spec(spec).hops(ranks, 0)
    for seconds, size in ((found.dispatch_forward, sent.forward), (found.dispatch_backward, sent.backward)):
        each = {level: size[level] / rate for level, rate in RATES.items()}
        if form == "hierarchical" and len(hops) == 2:
            expected = each["network"] + max(each["package"], each["node"])
        else:
            expected = max(each.values())
        assert seconds[0] == pytest.approx(expected)
        assert expected > 0


def test_a_rank_on_another_node_costs_a_latency() -> None:
    """32 ranks on four nodes of Frontier: 24 messages of nothing leave the node, with RCCL's latency each."""
    workload, _ = planned(MIXTRAL, nodes=4)
    assert workload.software
    one, empty = np.ones(1), np.zeros(1)
    found = Fabric(workload.machine, workload.software).all_to_all(32 * one, one, empty)
    assert found.network[0] == pytest.approx(24 * workload.software.rings.across_latency_s)
    assert found.package[0] == workload.machine.links.package.latency_s
    inside = Fabric(workload.machine, workload.software).all_to_all(8 * one, one, empty)
    assert inside.network[0] == 0


def test_busy_experts_take_longer() -> None:
    spec = spec_of(MIXTRAL, nodes=2, layout={"expert": 8})
    workload, c = Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))
    even, _ = balanced(workload, c)
    fabric = without_latency(workload)
    ratio = expert_hops.seconds(workload, c, fabric).forward / expert_hops.seconds(even, c, fabric).forward
    assert ratio[0] == pytest.approx(1.25)
    one = replace(c, expert=np.ones(1))
    assert step_time(workload, one).total == step_time(even, one).total
    assert step_time(workload, c).compute > step_time(even, c).compute


@pytest.mark.parametrize("expert", [1, 2, 8])
def test_experts_compute_the_tokens_that_they_get(expert: int) -> None:
    """2 x 2048 rows on 8 / expert experts, in place of a dense MLP of 2048, and a router of 8."""
    workload, c = balanced(*planned(MIXTRAL, nodes=1, layout={"expert": expert}))
    software = workload.software
    assert software
    dense = compute.layer(workload, c, software)
    sparse = compute.layer(workload, c, software, sparse=True)

    def seconds(m: float, n: float, k: float) -> float:
        return float(product(software, *(np.array([size]) for size in (m, n, k)))[0])

    def mlp(rows: float) -> float:
        return seconds(rows, 2 * 14336, 4096) + seconds(rows, 4096, 14336)

    own, rows = 8 // expert, 2 * 2048 * expert / 8
    products = own * mlp(rows) + seconds(2048, 8, 4096) - mlp(2048)
    # In 16 bits: the activation's widths, to the expert and back; the router's logits and scores in 32 bits.
    moved = 2 * (own * rows * (3 * 14336 + 4 * 4096) - 2048 * 3 * 14336) + 2048 * 3 * 4 * 8
    passes = moved / (1638.4e9 * 0.8)
    assert (sparse.forward - dense.forward)[0] == pytest.approx(products + passes)
    assert (sparse.backward - dense.backward)[0] == pytest.approx(2 * (products + passes))


def test_one_expert_takes_as_long_as_a_dense_mlp() -> None:
    """But for the router and the way to the expert, which stays on the rank."""
    one = {"num_experts": 1, "experts_per_token": 1, "ffn_hidden_size": 14336}
    for preset in ("ddp", "zero3", "hsdp", "three_level"):
        found, dense = (
            step_time(*planned(MIXTRAL | {"experts": experts}, nodes=4, preset=preset, batch=1024))
            for experts in (one, None)
        )
        assert found.dispatch[0] == 0
        assert found.compute[0] == pytest.approx(dense.compute[0], rel=0.02)
        assert found.optimizer[0] == pytest.approx(dense.optimizer[0], rel=1e-3)
        assert found.total[0] == pytest.approx(dense.total[0], rel=0.05)


def test_parts_add_up_and_dispatch_is_one() -> None:
    workload, c = planned(MIXTRAL, nodes=4, preset="zero3", layout={"expert": 8, "recompute": "full"})
    found = step_time(workload, c)
    assert found.total[0] == pytest.approx(sum(float(getattr(found, f.name)[0]) for f in fields(found)))
    fabric = Fabric(workload.machine, workload.software)
    one = expert_hops.seconds(workload, c, fabric)
    # Full recomputation repeats the forward.
    expected = c.grad_accum_steps * 32 * (2 * one.forward + one.backward)
    assert found.dispatch[0] == pytest.approx(expected[0])


def test_a_hop_to_nodes_pays_where_a_token_has_several_experts_on_one() -> None:
    """Qwen3's 8 of 128 experts over 32 devices of four nodes: 4 (1 - C(96, 8) / C(128, 8)) = 3.63 nodes
    and 32 (1 - C(124, 8) / C(128, 8)) = 7.36 devices have one, of which three quarters are on other nodes."""
    found = {}
    for form in ("hierarchical", "flat"):
        spec = spec_of(QWEN3, nodes=4, layout={"expert": 32, "dispatch": form})
        found[form] = dispatch(spec, Layout.from_spec(spec), 48).forward["network"]
    assert found["flat"] / found["hierarchical"] == pytest.approx(7.36 / 3.63, rel=0.002)
    times = {}
    for form in found:
        times[form] = step_time(*planned(QWEN3, nodes=4, layout={"expert": 32, "dispatch": form})).dispatch[0]
    assert times["hierarchical"] < times["flat"]


def test_the_bubble_is_that_of_the_stages_as_they_are() -> None:
    """1F1B with unequal stages: all of them once, less the slowest; then m micro-batches of the slowest."""
    workload, c = planned(MIXED, nodes=3, layout={"pipeline": 3, "micro_batch_size": 1})
    fabric = Fabric(workload.machine, workload.software)
    stages = [micro_batch(workload, c, np.full(1, float(index)), fabric).total[0] for index in range(3)]
    found = step_time(workload, c)
    messages = found.pipeline[0] / c.grad_accum_steps[0] * 2
    assert found.bubble[0] == pytest.approx(sum(stages) - max(stages) + messages)
    slowest = found.compute + found.recompute + found.tensor + found.dispatch
    assert slowest[0] == pytest.approx(c.grad_accum_steps[0] * max(stages))
