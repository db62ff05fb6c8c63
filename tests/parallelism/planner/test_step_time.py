"""Step time by formula: what published studies of Frontier observed, and the arithmetic of the parts."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from frontrunner.configs.load import load_run
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.compute import product
from frontrunner.parallelism.planner.parameters import stage_units
from frontrunner.parallelism.planner.step_time import MicroBatch, StepTime, slowest_of, step_time


def planned(run: str, *overrides: str) -> tuple[Workload, Candidates]:
    spec = load_run(run, overrides).spec
    return Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))


def timed(run: str, *overrides: str) -> StepTime:
    return step_time(*planned(run, *overrides))


def speed(run: str, *overrides: str) -> float:
    """Tokens/s of a device."""
    workload, c = planned(run, *overrides)
    found = c.grad_accum_steps * workload.tokens(c) / (c.tensor * c.pipeline) / step_time(workload, c).total
    return float(found[0])


def test_products_run_at_the_measured_rates() -> None:
    software = load_run("gpt-22b-frontier").spec.machine.software["2025"]
    for point in software.gemm:
        n = np.array([float(point.size)])
        rate = 2 * n**3 / product(software, n, n, n)
        assert rate[0] == pytest.approx(point.flops_per_s * software.gemm_factor)
    narrow, wide = (
        product(software, np.array([4096.0]), np.array([n]), np.array([4096.0])) for n in (64.0, 4096.0)
    )
    assert narrow[0] > wide[0] * 64 / 4096  # a narrow product wastes its tiles


def test_parts_add_up() -> None:
    found = timed("gpt-175b-frontier")
    assert found.total[0] == pytest.approx(sum(float(getattr(found, f.name)[0]) for f in fields(found)))
    assert all(getattr(found, f.name)[0] >= 0 for f in fields(found))


@pytest.mark.parametrize(("batch", "accumulation"), [(64, 32), (640, 320)])
def test_the_bubble_is_stages_over_micro_batches(batch: int, accumulation: int) -> None:
    """Narayanan et al. 2021, section 2.2.1: (p - 1) / m of the time without it, 1 / v of that interleaved."""
    plain = timed("gpt-175b-frontier", f"training.global_batch_size={batch}")
    working = plain.compute + plain.recompute + plain.tensor + plain.pipeline
    assert plain.bubble[0] / working[0] == pytest.approx(15 / accumulation, rel=0.05)
    interleaved = timed("gpt-175b-frontier", f"training.global_batch_size={batch}", "layout.virtual_stages=2")
    assert interleaved.bubble[0] == pytest.approx(plain.bubble[0] / 2, rel=0.1)


@pytest.mark.parametrize("virtual", [1, 2, 3])
def test_virtual_stages_do_not_shorten_messages(virtual: int) -> None:
    """A pipeline fills and drains in p - 1 pieces of a stage, each with a message both ways."""
    workload, c = planned("gpt-175b-frontier", f"layout.virtual_stages={virtual}")
    assert workload.software
    rings = workload.software.rings.model_copy(update={"point_to_point": 1e9})
    slower = replace(workload, software=workload.software.model_copy(update={"rings": rings}))
    now, then = step_time(workload, c), step_time(slower, c)
    one = (then.pipeline - now.pipeline) / c.grad_accum_steps / virtual
    assert then.bubble - now.bubble == pytest.approx(15 * one)


def test_tensor_ranks_beyond_the_package_cost() -> None:
    """Dash et al.: tensor parallelism costs beyond a package; beyond a node it ruins the throughput."""
    base = ("gpt-22b-frontier", "nodes=2", "layout.pipeline=1", "training.global_batch_size=64")
    shares = []
    for tensor in (2, 4, 8):
        found = timed(*base, f"layout.tensor={tensor}")
        shares.append(float(found.tensor[0] / found.total[0]))
    assert shares == sorted(shares)
    assert shares[1] > 2 * shares[0]
    workload, c = planned(*base, "layout.tensor=8")
    across = replace(c, tensor=np.array([16.0]), data=np.array([1.0]), optimizer=np.array([1.0]))
    inside = step_time(workload, c)
    beyond = step_time(workload, across)
    # With twice the ranks a step has half the tokens: more than a third of the throughput is lost. (Messages
    # took more time than computing while a ring's step was taken to cost 300 us, which RCCL's do not.)
    assert inside.total[0] / 2 / beyond.total[0] < 2 / 3


def test_more_micro_batches_fill_the_pipeline_and_more_stages_empty_it() -> None:
    base = ("gpt-175b-frontier", "nodes=128")
    batches = [speed(*base, f"training.global_batch_size={batch}") for batch in (640, 1280, 2560)]
    assert batches == sorted(batches)
    stages = [
        speed(*base, f"layout.pipeline={stages}", "training.global_batch_size=1536") for stages in (8, 16, 32)
    ]
    assert stages == sorted(stages, reverse=True)


def test_as_many_micro_batches_a_stage_keep_the_bubble() -> None:
    shares = []
    for stages in (4, 8, 16):
        # Micro-batches are batch x stages x tensor / devices.
        found = timed(
            "gpt-175b-frontier", f"layout.pipeline={stages}", "training.global_batch_size=640", "nodes=16"
        )
        shares.append(float(found.bubble[0] / found.total[0]))
    assert max(shares) - min(shares) < 0.02


def test_quantised_three_level_sharding_beats_zero3_across_nodes() -> None:
    base = (
        "gpt-22b-frontier",
        "model=gpt-neox-20b",
        "nodes=48",
        "layout.pipeline=1",
        "layout.recompute=full",
    )
    exposed = {}
    for preset in ("zero3", "zeropp", "three_level"):
        # With accumulation: ZeRO++ sends gradients in each micro-batch, three levels once.
        found = timed(*base, f"layout.sharding={{preset: {preset}}}", "training.global_batch_size=3072")
        exposed[preset] = float((found.weights + found.gradients)[0])
    assert exposed["three_level"] <= exposed["zeropp"] <= exposed["zero3"]


def test_the_optimizer_takes_what_its_memory_traffic_takes() -> None:
    """Gradients read twice, master and moments read and written, the weights written."""
    workload, c = planned("gpt-22b-frontier")
    stage = stage_units(workload.model, 1, 8)
    rate = 1638.4e9 * 0.8
    assert step_time(workload, c).optimizer[0] == pytest.approx(stage.numel / 2 * (2 * 4 + 6 * 4 + 2) / rate)


def test_measured_computing_takes_the_place_of_the_table() -> None:
    spec = load_run("quickstart", ["machine=emulated", "training.global_batch_size=128"]).spec
    workload, c = Workload.of(spec), Candidates.of(spec, Layout.from_spec(spec))
    one = np.ones(1)
    computing = MicroBatch(one * 1.0, one * 2.0, 0 * one, 0 * one, 0 * one)
    found = step_time(workload, c, computing, optimizer_s=0.5)
    assert found.compute[0] == 3.0 * spec.grad_accum_steps
    assert found.optimizer[0] == 0.5
    assert found.total[0] >= 3.5


def test_the_slowest_of_more_devices_is_slower() -> None:
    """The largest of n normal values: sqrt(2 ln n) standard deviations; 4.56 of 1 % at 32,768 devices."""
    found = slowest_of(np.array([1.0, 8.0, 512.0, 32768.0]), planned("gpt-22b-frontier")[0].software)
    assert found[0] == 0
    assert list(found) == sorted(found)
    assert found[-1] == pytest.approx(0.0456, rel=0.01)


def test_computing_beside_a_collective_is_slower() -> None:
    base = ("gpt-22b-frontier", "model=gpt-neox-20b", "nodes=48", "layout.pipeline=1")
    workload, c = planned(*base, "layout.sharding={preset: zero3}", "training.global_batch_size=384")
    assert workload.software
    free = replace(workload, software=workload.software.model_copy(update={"contention": 0.0}))
    now, then = step_time(workload, c), step_time(free, c)
    assert now.compute == then.compute
    assert now.weights > then.weights
    assert now.gradients > then.gradients
