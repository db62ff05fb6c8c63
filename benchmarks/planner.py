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
#: Model, nodes of Frontier, sequences per step.
SEARCHES = (
    ("gpt-22b", 16, 640),
    ("llama-3-8b", 32, 1024),
    ("llama-2-70b", 64, 1024),
    ("gpt-175b", 48, 1152),
    ("gpt-1t", 384, 9600),
)
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
    from frontrunner.launcher.commands.search import request
    from frontrunner.parallelism.planner.candidates import Workload
    from frontrunner.parallelism.planner.search import search

    for model, nodes, batch in SEARCHES:
        workload = Workload.of(request(model, "frontier", nodes, None))
        wall, core, layouts = [], [], 0
        for _ in range(args.repeat):
            start, busy = time.perf_counter(), time.process_time()
            layouts = len(search(workload, nodes, batch).space.candidates)
            wall.append(time.perf_counter() - start)
            core.append(time.process_time() - busy)
        rate = layouts / statistics.median(core)
        print(
            f"search of {model} on {nodes} nodes: {layouts:,} legal layouts in {statistics.median(wall):.3f} "
            f"s, {rate:,.0f} per second of one core, {rate / CALCULON_LAYOUTS_PER_S:,.0f} times Calculon's"
        )


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
