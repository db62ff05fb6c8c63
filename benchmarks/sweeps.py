"""Trials until within 5 % of the best on the paper's space of 175B, on a simulated cluster.

    python benchmarks/sweeps.py [--sweep gpt-175b-dash] [--seeds 5] [--trials 80] [--jobs 8] [--error 0.08]

Side by side: the guided search; Optuna's TPE, random search and, where it is installed, DeepHyper, each over
all legal points, without the planner, and over those that fit by the planner. A batch of jobs is out at once,
and all of them are chosen before any result of the batch is known. Beside that the shares of the keys by
SHAP: over all legal points of the first seed's cluster (what runs out of memory has no speed), and over those
that fit. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec

import numpy as np
from simulated_cluster import Physics, SimulatedCluster

from frontrunner.configs.load_sweep import SweepDocument, load_sweep
from frontrunner.configs.sweep import Sampler
from frontrunner.launcher.sweeping.samplers import MARGIN, strategy
from frontrunner.launcher.sweeping.sensitivity import shap_shares
from frontrunner.launcher.sweeping.space import Point, points, predict
from frontrunner.launcher.sweeping.store import Trial

SEARCHES: dict[str, tuple[Sampler, bool]] = {
    "ours": ("guided", True),
    "tpe with the planner's limits": ("tpe", True),
    "tpe alone": ("tpe", False),
    "random with the planner's limits": ("random", True),
    "random": ("random", False),
}
#: The same for DeepHyper: whether what cannot fit by the planner is left out.
DEEPHYPER = {"deephyper with the planner's limits": True, "deephyper alone": False}
WITHIN = 0.05


def trials_until(
    sweep: SweepDocument, known: Sequence[Point], cluster: SimulatedCluster, search: str, most: int, jobs: int
) -> tuple[int | None, list[Trial]]:
    """Trials until one is truly within 5 % of the best, None where ``most`` do not do; and all trials."""
    choose = _chooser(sweep, known, search, jobs)
    trials: list[Trial] = []
    reached = None
    while len(trials) < most and reached is None:
        asked: list[Trial] = []
        for _ in range(min(jobs, most - len(trials))):
            point = choose([*trials, *asked])
            if point is None:
                break
            number = len(trials) + len(asked)
            asked.append(Trial(number, point.number, point.values, "running", None, None, 1, None, 0.0))
        if not asked:
            break
        for trial in asked:
            value, failure = cluster.run(known[trial.point])
            state = "failed" if failure else "complete"
            trials.append(replace(trial, state=state, objective=value, failure=failure))
            if reached is None and cluster.shortfall(known[trial.point]) <= WITHIN:
                reached = len(trials)
    return reached, trials


def _chooser(
    sweep: SweepDocument, known: Sequence[Point], search: str, jobs: int
) -> Callable[[Sequence[Trial]], Point | None]:
    if search in SEARCHES:
        sampler, planner = SEARCHES[search]
        return strategy(sweep, known, sampler, planner=planner).choose
    from deephyper_search import DeepHyper

    load = predict(known, sweep.spec.objective).load
    allowed = load <= (MARGIN if DEEPHYPER[search] else np.inf)
    return DeepHyper(sweep, known, allowed, jobs).choose


def measure(sweep: SweepDocument, seeds: int, most: int, jobs: int, physics: Physics) -> dict[str, object]:
    known = points(sweep)
    searches = [*SEARCHES, *(DEEPHYPER if find_spec("deephyper") else ())]
    found: dict[str, list[int | None]] = {search: [] for search in searches}
    good = []
    for seed in range(seeds):
        for search, results in found.items():
            own = replace(sweep, spec=sweep.spec.model_copy(update={"seed": seed}))
            cluster = SimulatedCluster(known, sweep.spec.objective, seed, physics)
            results.append(trials_until(own, known, cluster, search, most, jobs)[0])
        good.append(int(np.sum([cluster.shortfall(point) <= WITHIN for point in known])))
    return {
        "legal": len(known),
        "within_5_percent": good,
        "physics": asdict(physics),
        "jobs": jobs,
        "most": most,
        "trials": found,
        "median": {
            search: statistics.median(most + 1 if count is None else count for count in counts)
            for search, counts in found.items()
        },
    }


def shares(sweep: SweepDocument, physics: Physics) -> dict[str, object]:
    """What SHAP says of the keys, and the paper's order (arXiv 2312.12705, as remembered)."""
    known = points(sweep)
    cluster = SimulatedCluster(known, sweep.spec.objective, 0, physics)
    trials = []
    for point in known:
        value, failure = cluster.run(point)
        state = "failed" if failure else "complete"
        trials.append(Trial(point.number, point.number, point.values, state, value, failure, 1, None, 0.0))
    return {
        "all": shap_shares(sweep, trials),
        "fitting": shap_shares(sweep, [trial for trial in trials if trial.failure is None]),
        "paper": ["micro-batch", "tensor", "pipeline", "nodes", "ZeRO-1"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sweep", default="gpt-175b-dash")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=80)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--error", type=float, default=Physics.error, help="of the planner (log)")
    given = parser.parse_args()
    physics = Physics(error=given.error)
    if not find_spec("deephyper"):
        print("DeepHyper is left out: pip install deephyper", file=sys.stderr)
    sweep = load_sweep(given.sweep)
    found = measure(sweep, given.seeds, given.trials, given.jobs, physics)
    print(json.dumps(found | {"shap": shares(sweep, physics)}, indent=2))


if __name__ == "__main__":
    main()
