"""Searches the space that sweep_table.py measured, live: trials are jobs of a real Slurm of four nodes.

    python benchmarks/sweep_live.py [--folder runs/sweep-live]

Prints the trials in order beside their table values. Then prints the first trial that the table cannot
tell from its best point, and how many trials fit into memory in only one of the two.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from sweep_table import HERE, STACK_BYTES, Measured, as_good_as_best, read

from frontrunner.configs.load_sweep import load_sweep
from frontrunner.launcher.sweeping.space import Point, points

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # for the Slurm that the tests run on
from support.slurm_cluster import SlurmCluster, missing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweep", default=str(HERE / "sweep.yaml"))
    parser.add_argument("--table", type=Path, default=HERE / "table.jsonl")
    parser.add_argument("--folder", type=Path, default=Path("runs/sweep-live"))
    args = parser.parse_args()
    if reason := missing():
        sys.exit(reason)
    document = load_sweep(args.sweep)
    known = points(document)
    measured = read(args.table, known)  # before all trials: it may not be there
    # Jobs have the limits of what submits them.
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, resource.getrlimit(resource.RLIMIT_STACK)[1]))
    daemons = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # sockets want short paths
    try:
        with SlurmCluster(daemons) as cluster:
            found = sweep(cluster, args.sweep, args.folder)
    finally:
        shutil.rmtree(daemons, ignore_errors=True)
    report(found, known, measured, document.spec.objective)


def sweep(cluster: SlurmCluster, file: str, folder: Path) -> dict[str, Any]:
    """What ``sweep run`` says; a sweep that was interrupted goes on."""
    frontrunner = str(Path(sys.executable).with_name("frontrunner"))
    words = [frontrunner, "sweep", "run", file, "--on", "slurm", "--folder", str(folder), "--json"]
    done = subprocess.run(words, env=cluster.env, stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def report(
    found: dict[str, Any], known: Sequence[Point], measured: Sequence[Measured], objective: str
) -> None:
    good = as_good_as_best(measured, objective)
    console = Console(width=110, highlight=False)
    trials = sorted(found["trials"], key=lambda trial: trial["number"])
    for trial in trials:
        rounds = " ".join(f"{value:.1f}" if value else "none" for value in measured[trial["point"]].rounds)
        own = f"{trial['objective']:.1f}" if trial["objective"] else trial["failure"]
        mark = "as good as the best" if trial["point"] in good else ""
        console.print(f"{trial['number']:3} {own:>14}  table: {rounds:>13}  {trial['values']} {mark}")
    first = next((n for n, trial in enumerate(trials, 1) if trial["point"] in good), None)
    other = [t for t in trials if (t["failure"] == "out_of_memory") == measured[t["point"]].fits]
    order = sorted((n for n, each in enumerate(measured) if each.fits), key=lambda n: -measured[n].mean)
    place = order.index(found["best"]["point"]) + 1 if found["best"]["point"] in order else "none"
    console.print(
        f"{len(trials)} trials of {len(known)} points, {found['node_hours']:.3f} node-hours; the first as "
        f"good as the table's best: {first}; the sweep's best has place {place} in the table; "
        f"out of memory otherwise than in the table: {len(other)}"
    )


if __name__ == "__main__":
    main()
