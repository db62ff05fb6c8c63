"""The planner's speed: start-up of ``frontrunner plan``, and layouts estimated per second on one core.

    python benchmarks/planner.py [--repeat 7]

The references: Python that starts and imports numpy and pydantic, and the 26 layouts per second and core that
Calculon (github.com/calculon-ai/calculon) estimated on a machine like this.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CALCULON_LAYOUTS_PER_S = 26
PLAN = [str(Path(sys.executable).parent / "frontrunner"), "plan", "gpt-175b-frontier"]
BARE = [sys.executable, "-c", "import numpy, pydantic"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=7)
    args = parser.parse_args()
    # Side by side: the two take turns.
    pairs = [(_seconds(PLAN), _seconds(BARE)) for _ in range(args.repeat)]
    plan, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"frontrunner plan: {plan:.3f} s, {plan / bare:.2f} of Python with numpy and pydantic ({bare:.3f} s)"
    )
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    from frontrunner.configs.load import load_run
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.search import search

    workload = Workload.of(load_run("gpt-1t-frontier", ["nodes=384", "training.global_batch_size=9600"]).spec)
    seconds, layouts = [], 0
    for _ in range(args.repeat):
        start = time.perf_counter()
        layouts = len(search(workload, 384, 9600).space.candidates)
        seconds.append(time.perf_counter() - start)
    rate = layouts / statistics.median(seconds)
    median = statistics.median(seconds)
    print(
        f"search of gpt-1t on 384 nodes: {layouts:,} legal layouts in {median:.3f} s on one core, "
        f"{rate:,.0f} a second, {rate / CALCULON_LAYOUTS_PER_S:,.0f} times Calculon's"
    )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
