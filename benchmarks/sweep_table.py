"""Searches a fully measured space: counts trials until no better point can be told from the one found.

    python benchmarks/machine_rates.py --memory 85000000
    python benchmarks/sweep_table.py measure [--sweep SWEEP.yaml] [--table TABLE.jsonl]
    python benchmarks/sweep_table.py search [--seeds 5]

``measure`` trains every legal point twice, in two rounds with different random orders. The machine file's
memory limit applies to the ranks, so some run out of memory. Ranks are forked from one process that has
imported torch; everything else, including how results are read, is as in a trial of a sweep. Rows already in
the table are not measured again.

``search`` asks each search for its trials and answers with one of the two measurements, which of them by the
seed. The noise is the standard deviation of the logarithm of one measurement, from all pairs; a point is as
good as the best where the means of both do not differ by more than 1.96 of it (the difference of two means of
two has that standard deviation too).
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import resource
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table as View

from frontrunner.configs.errors import SpecError
from frontrunner.configs.load_sweep import SweepDocument, load_sweep
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sweep import OBJECTIVES, Sampler
from frontrunner.launcher.ranks.local import PRELOAD
from frontrunner.launcher.ranks.rank import TRAIN, run_rank
from frontrunner.launcher.sweeping import outcome
from frontrunner.launcher.sweeping.samplers import strategy
from frontrunner.launcher.sweeping.space import Point, points
from frontrunner.launcher.sweeping.store import Trial
from frontrunner.parallelism.rendezvous import Rendezvous, free_port
from frontrunner.run_folder import folder as run_folder

HERE = Path(__file__).parent / "small_gpt"
SEARCHES: dict[str, tuple[Sampler, bool]] = {
    "guided": ("guided", True),
    "TPE": ("tpe", False),
    "random": ("random", False),
}
ROUNDS = 2
_LIMIT_S, _GRACE_S = 600.0, 2.0
STACK_BYTES = 2**20


@dataclass(frozen=True)
class Measured:
    """A point's rounds: objectives, None where it ran out of memory."""

    rounds: tuple[float | None, ...]

    @property
    def fits(self) -> bool:
        return None not in self.rounds

    @cached_property
    def mean(self) -> float:
        """Geometric; of points that fit."""
        return math.exp(statistics.mean(math.log(value) for value in self.rounds if value is not None))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["measure", "search"])
    parser.add_argument("--sweep", default=str(HERE / "sweep.yaml"))
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl")
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep_table"), help="of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    try:
        sweep = load_sweep(args.sweep)
        known = points(sweep)
    except SpecError as error:
        raise SystemExit(str(error)) from None
    if args.what == "measure":
        measure(sweep, known, args.table, args.folder)
    report(sweep, known, read(args.table, known), args.seeds)


def measure(sweep: SweepDocument, known: Sequence[Point], table: Path, folder: Path) -> None:
    """Append a row for each point and round that ``table`` lacks."""
    # Stacks of threads count as a process's data, with their whole size.
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    rows = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    done = {(row["round"], json.dumps(row["values"])) for row in rows}
    orders = [np.random.default_rng(number).permutation(len(known)) for number in range(ROUNDS)]
    wanted = [
        (number, known[place])
        for number, order in enumerate(orders)
        for place in order
        if (number, json.dumps(known[place].values)) not in done
    ]
    for number, point in track(wanted, "measuring"):
        value, failure = trial(context, point.spec, folder / f"{point.number}-{number}", sweep.spec.objective)
        row = {"values": point.values, "round": number, "objective": value, "failure": failure}
        with table.open("a") as file:
            file.write(json.dumps(row) + "\n")


def trial(
    context: ForkServerContext, spec: RunSpec, run_dir: Path, objective: str
) -> tuple[float | None, str | None]:
    """Train a point, and say what its records do, or why it failed."""
    shutil.rmtree(run_dir, ignore_errors=True)
    run_folder.create(run_dir, spec)
    world, port = spec.nodes * spec.machine.devices_per_node, free_port()
    ranks = [context.Process(target=train, args=(run_dir, rank, world, port)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    deadline = time.monotonic() + _LIMIT_S
    while running := [rank for rank in ranks if rank.exitcode is None]:
        if any(rank.exitcode for rank in ranks):
            deadline = min(deadline, time.monotonic() + _GRACE_S)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            break
        connection.wait([rank.sentinel for rank in running], min(left_s, _GRACE_S))
    for rank in ranks:
        rank.kill()
        rank.join()
    failed = any(rank.exitcode for rank in ranks)
    failure = outcome.failure(run_dir, outcome.Ended(int(failed)))
    return (None, failure) if failure else (outcome.objective(run_dir, objective), None)


def train(run_dir: Path, rank: int, world: int, port: int) -> None:
    """One rank."""
    raise SystemExit(run_rank(TRAIN, run_dir, Rendezvous(rank, world, rank, "127.0.0.1", port, "benchmark")))


def read(table: Path, known: Sequence[Point]) -> list[Measured]:
    """By the points' numbers; a failure that is not of memory does not belong there."""
    if not table.exists():
        raise SystemExit(f"{table} is not there: run `sweep_table.py measure`")
    found: dict[str, dict[int, float | None]] = {}
    for line in table.read_text().splitlines():
        row = json.loads(line)
        if row["failure"] not in (None, "out_of_memory"):
            raise SystemExit(f"{table}: {row['values']} failed: {row['failure']}")
        found.setdefault(json.dumps(row["values"]), {})[row["round"]] = row["objective"]
    rounds = [found.get(json.dumps(point.values), {}) for point in known]
    if any(len(each) < ROUNDS for each in rounds):
        raise SystemExit(f"{table} does not hold the whole space: run `sweep_table.py measure`")
    return [Measured(tuple(each[number] for number in range(ROUNDS))) for each in rounds]


def noise(measured: Sequence[Measured]) -> float:
    """Standard deviation of the logarithm of one measurement."""
    pairs = [each.rounds for each in measured if each.fits]
    return math.sqrt(statistics.mean(math.log(a / b) ** 2 / 2 for a, b in pairs if a and b))


def as_good_as_best(measured: Sequence[Measured], objective: str) -> set[int]:
    """Points that cannot be told from the best."""
    sign = 1 if OBJECTIVES[objective] else -1
    values = {n: sign * math.log(each.mean) for n, each in enumerate(measured) if each.fits}
    least = max(values.values()) - 1.96 * noise(measured)
    return {number for number, value in values.items() if value >= least}


def trials_until(
    sweep: SweepDocument, known: Sequence[Point], measured: Sequence[Measured], search: str, seed: int
) -> int:
    """Trials until one is as good as the best, one at a time."""
    sampler, planner = SEARCHES[search]
    own = replace(sweep, spec=sweep.spec.model_copy(update={"seed": seed}))
    plan = strategy(own, known, sampler, planner=planner)
    good = as_good_as_best(measured, sweep.spec.objective)
    answers = np.random.default_rng([seed, 7]).integers(ROUNDS, size=len(known))
    trials: list[Trial] = []
    while (point := plan.choose(trials)) is not None:
        number = point.number
        value = measured[number].rounds[answers[number]]
        failure = None if value else "out_of_memory"
        state = "failed" if failure else "complete"
        trials.append(Trial(len(trials), number, point.values, state, value, failure, 1, None, 0.0))
        if number in good:
            return len(trials)
    return len(known) + 1


def report(sweep: SweepDocument, known: Sequence[Point], measured: Sequence[Measured], seeds: int) -> None:
    """Print what the table holds, and how long each search takes on it."""
    good = as_good_as_best(measured, sweep.spec.objective)
    console = Console(width=110)
    console.print(
        f"{len(known)} legal points, {sum(each.fits for each in measured)} of which fit; noise of one "
        f"measurement {noise(measured):.1%}; {len(good)} cannot be told from the best:"
    )
    for number in sorted(good, key=lambda n: -measured[n].mean):
        rounds = ", ".join(f"{value:.1f}" for value in measured[number].rounds if value)
        console.print(f"  {rounds} {sweep.spec.objective}  {known[number].values}")
    view = View("search", *(f"seed {seed}" for seed in range(seeds)), "median", "of the points")
    for search in SEARCHES:
        counts = [trials_until(sweep, known, measured, search, seed) for seed in range(seeds)]
        median = statistics.median(counts)
        view.add_row(search, *map(str, counts), f"{median:g}", f"{median / len(known):.0%}")
    console.print("trials until one of them was tried")
    console.print(view)


if __name__ == "__main__":
    main()
