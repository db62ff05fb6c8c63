"""Which points a sweep tries: legal ones, none twice, the best predicted first, and what the errors teach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optuna")
pytest.importorskip("shap")

from simulated_cluster import Physics, SimulatedCluster
from sweeps import SEARCHES, WITHIN, trials_until

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load_sweep import SweepDocument
from frontrunner.configs.sweep import Sampler
from frontrunner.launcher.sweeping.guided import Guided, History, recalibrated
from frontrunner.launcher.sweeping.samplers import strategy
from frontrunner.launcher.sweeping.space import points, predict
from frontrunner.launcher.sweeping.store import OUT_OF_MEMORY, Trial
from frontrunner.parallelism.planner.calibrate import with_constants
from support.sweeps import SMALL, small_sweep

CONDITION = """\
base: gpt-22b-frontier
space:
  layout.pipeline: [4, 8]
  layout.virtual_stages: {choices: [1, 2, 3], when: {layout.pipeline: [4]}}
"""


def test_points_are_the_legal_runs(tmp_path: Path) -> None:
    known = points(small_sweep(tmp_path))
    assert len(known) == 24
    for point in known:
        layout = point.spec.layout
        assert layout.tensor == point.values["layout.tensor"]
        assert layout.micro_batch_size == point.values["layout.micro_batch_size"]
        assert point.spec.training.steps == 10
        assert not point.spec.checkpoint.periodic
    predicted = predict(known, "tokens_per_s_per_device")
    assert len(set(predicted.objective)) == 24


BASE = "{model: gpt-tiny, machine: workstation, data: synthetic, training: {steps: 10}}"
BATCHES = """\
base: base.yaml
space: {layout.micro_batch_size: [1, 2, 4], layout.sharding.preset: [ddp, zero3]}
"""


def test_trials_have_one_batch_where_none_is_set(tmp_path: Path) -> None:
    """A default that follows from the layout would compare runs of different batches."""
    (tmp_path / "base.yaml").write_text(BASE)
    known = points(small_sweep(tmp_path, BATCHES))
    assert len(known) == 6
    (batch,) = {point.spec.training.global_batch_size for point in known}
    assert batch % (4 * known[0].spec.world_size) == 0
    (tmp_path / "base.yaml").write_text(BASE.replace("10}", f"10, global_batch_size: {2 * batch}}}"))
    known = points(small_sweep(tmp_path, BATCHES))
    assert {point.spec.training.global_batch_size for point in known} == {2 * batch}


def test_layouts_without_a_batch_in_common_are_refused(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    space = BATCHES.replace("[1, 2, 4]", "[7, 11, 13, 17, 19]")
    with pytest.raises(
        SpecError, match="sets no training.global_batch_size, and the smallest .* set it in the"
    ):
        points(small_sweep(tmp_path, space))


def test_a_condition_leaves_keys_out(tmp_path: Path) -> None:
    found = [point.values for point in points(small_sweep(tmp_path, CONDITION))]
    assert {"layout.pipeline": 8} in found
    assert [values["layout.virtual_stages"] for values in found if values["layout.pipeline"] == 4] == [
        1,
        2,
        3,
    ]
    assert len(found) == 4


def test_accumulation_sets_the_batch(tmp_path: Path) -> None:
    text = "base: gpt-22b-frontier\nspace: {grad_accum_steps: [5, 7], layout.tensor: [1, 2]}\n"
    for point in points(small_sweep(tmp_path, text)):
        assert point.spec.grad_accum_steps == point.values["grad_accum_steps"]


def test_a_space_without_a_legal_point(tmp_path: Path) -> None:
    text = SMALL.replace("[2, 4, 8]", "[7]")
    with pytest.raises(SpecError, match=r"small.yaml:2 space: contains no legal run; most common reason:"):
        points(small_sweep(tmp_path, text))


def completed(sweep: SweepDocument, sampler: Sampler, most: int = 100) -> list[Trial]:
    known = points(sweep)
    chosen = strategy(sweep, known, sampler)
    trials: list[Trial] = []
    while len(trials) < most and (point := chosen.choose(trials)) is not None:
        value = float(100 + point.number)
        trials.append(Trial(len(trials), point.number, point.values, "complete", value, None, 1, None, 0.0))
    return trials


@pytest.mark.parametrize("sampler", ["guided", "tpe", "random", "grid"])
def test_each_point_that_can_fit_is_tried_once(tmp_path: Path, sampler: Sampler) -> None:
    sweep = small_sweep(tmp_path)
    fitting = np.flatnonzero(predict(points(sweep), sweep.spec.objective).load <= 0.05)
    assert 5 < len(fitting) < 24
    tried = [trial.point for trial in completed(sweep, sampler)]
    assert sorted(tried) == list(fitting)
    if sampler == "grid":
        assert tried == sorted(tried)


def test_optunas_gaussian_process(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    assert len({trial.point for trial in completed(small_sweep(tmp_path), "gp", 12)}) == 12


def test_the_best_predicted_come_first(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    predicted = predict(points(sweep), sweep.spec.objective)
    guided = Guided(points(sweep), predicted.load <= -0.1, sweep.spec.objective)
    history = History({})
    worth = predicted.objective * guided._fits(history)
    order = np.argsort(-np.where(predicted.load <= -0.1, worth, 0))
    for place in range(3):
        point = guided.choose(history)
        assert point is not None
        assert point.number == order[place]
        history = replace(history, running=history.running | {point.number})


def test_memory_failures_move_the_boundary(tmp_path: Path) -> None:
    """After some points that should fit have not, those that need more are the last to be tried."""
    sweep = small_sweep(tmp_path)
    known = points(sweep)
    load = predict(known, sweep.spec.objective).load
    fitting = np.flatnonzero(load <= 0)
    middle = fitting[np.argsort(load[fitting])[-2]]
    guided = Guided(known, load <= 0, sweep.spec.objective)
    chances = guided._fits(History({}, frozenset([int(middle)])))
    assert chances[load > load[middle]].max() < 0.5
    assert chances[load < load[middle] - 0.3].min() > 0.9


def test_the_planner_is_recalibrated(tmp_path: Path) -> None:
    """Of a machine whose products of matrices are slower than its file says, the rate is found."""
    sweep = small_sweep(tmp_path)
    known = points(sweep)[:6]
    software = known[0].workload.software
    assert software is not None
    slower = with_constants(software, {"gemm_factor": 0.7 * software.gemm_factor})
    truth = predict(known, sweep.spec.objective, {id(known[0].workload): slower}).objective
    found = recalibrated(known, {p.number: float(truth[p.number]) for p in known[:4]}, sweep.spec.objective)
    again = predict(known, sweep.spec.objective, found).objective
    before = predict(known, sweep.spec.objective).objective
    assert np.abs(again / truth - 1).max() < 0.03 < np.abs(before / truth - 1).max()


def test_the_error_of_the_prediction_is_learnt(tmp_path: Path) -> None:
    """On sixteen clusters that are far from the planner: fewer trials than at random, or in its own order."""
    sweep = small_sweep(tmp_path)
    known = points(sweep)
    predicted = predict(known, sweep.spec.objective)
    in_order = [known[n] for n in np.argsort(-predicted.objective) if predicted.load[n] < 0.05]
    counts = {"ours": 0, "random": 0, "in order": 0}
    for seed in range(16):
        own = replace(sweep, spec=sweep.spec.model_copy(update={"seed": seed}))
        for search in ("ours", "random"):
            assert search in SEARCHES
            cluster = SimulatedCluster(known, sweep.spec.objective, seed, Physics(error=0.2))
            reached, trials = trials_until(own, known, cluster, search, len(known), 1)
            assert reached is not None
            assert len({trial.point for trial in trials}) == len(trials)
            counts[search] += reached
        good = [cluster.shortfall(point) <= WITHIN for point in in_order]
        counts["in order"] += 1 + good.index(True)
    assert counts["ours"] <= 0.8 * counts["random"]
    assert counts["ours"] <= 0.85 * counts["in order"]


def test_what_is_learnt_of_some_points_holds_for_those_like_them(tmp_path: Path) -> None:
    """Where one tensor rank turns out three times as fast as predicted, it is tried again."""
    sweep = small_sweep(tmp_path)
    known = points(sweep)
    predicted = predict(known, sweep.spec.objective)
    by_tensor = {
        tensor: [p.number for p in known if p.spec.layout.tensor == tensor and predicted.load[p.number] < 0]
        for tensor in (1, 2)
    }
    slowest_first = {t: sorted(n, key=lambda k: predicted.objective[k]) for t, n in by_tensor.items()}
    measured = {n: float(predicted.objective[n]) for n in slowest_first[2][:3]}
    measured |= {n: 3 * float(predicted.objective[n]) for n in slowest_first[1][:3]}
    guided = Guided(known, predicted.load < 0, sweep.spec.objective)
    guided._recalibrated_at = 100  # of the errors alone
    point = guided.choose(History(measured))
    assert point is not None
    assert point.spec.layout.tensor == 1
    free = [n for n in by_tensor[1] + by_tensor[2] if n not in measured]
    assert known[max(free, key=lambda n: predicted.objective[n])].spec.layout.tensor == 2


def test_failures_of_memory_come_from_the_cluster(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    known = points(sweep)
    cluster = SimulatedCluster(known, sweep.spec.objective, 0)
    outcomes = [cluster.run(point) for point in known]
    assert [failure == OUT_OF_MEMORY for _, failure in outcomes] == [not fits for fits in cluster.fits]
    assert cluster.shortfall(known[int(np.argmax(np.where(cluster.fits, cluster.truth, 0)))]) == 0
