"""Weak scaling on the emulated cluster: step time at 1, 2 and 4 nodes with fixed work per device.

    python benchmarks/scaling.py [--accumulation 1 4 8 16] [--scale 0.125] [--output FILE.jsonl]

Unlike on a cluster, all ranks share this machine's cores, so computing grows with the number of nodes.
Micro-batches therefore have few tokens, the links are slow, and the share of computing is printed: the step
time on unshaped links over that on shaped ones. Efficiency is the step time on one node over that on n. A
second table continues to 384 devices by formula: each level's bytes over its rate, the slowest level before
the update plus the slowest in it, without computing and latency.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from emulated_runs import UNITS, Engine, run, run_spec
from rich.console import Console
from rich.table import Table

from frontrunner.configs.load import load_machine
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.traffic import traffic

THREE_LEVEL = Engine("three_level, int8/int4", {"preset": "three_level"})
INT8_NETWORK = Engine(
    "three_level, int8/int4, int8 network", {"preset": "three_level", "wire": {"network": "int8"}}
)
ZERO3 = Engine("own zero3", {"preset": "zero3"})
ENGINES = [THREE_LEVEL, INT8_NETWORK, ZERO3]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=8, help="tokens in a micro-batch")
    parser.add_argument("--scale", type=float, default=0.125, help="times the link rates")
    parser.add_argument("--output", type=Path, help="append each figure to this file as it is found")
    parser.add_argument("--formula", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 48], help="nodes")
    parser.add_argument("--show", type=Path, help="print the table of such a file and measure nothing")
    names = [engine.name for engine in ENGINES]
    parser.add_argument("--rows", nargs="+", default=names, choices=names, metavar="ROW")
    args = parser.parse_args()
    if args.show:
        rows = [json.loads(line) for line in args.show.read_text().splitlines()]
    else:
        wanted = rows_of([engine for engine in ENGINES if engine.name in args.rows], args.accumulation)
        rows = measure(wanted, args.nodes, args.tokens, args.scale, args.output)
    report(rows)
    report_formula(args.formula, args.accumulation)


def rows_of(engines: list[Engine], accumulations: list[int]) -> list[tuple[Engine, int]]:
    """Engines and accumulations: three levels with each network format, and ZeRO-3 beside them."""
    return [(engine, a) for engine in engines for a in (accumulations if engine is not ZERO3 else [1])]


def measure(
    wanted: list[tuple[Engine, int]], nodes: list[int], tokens: int, scale: float, output: Path | None
) -> list[Row]:
    rows: list[Row] = []
    machine = load_machine("emulated")
    for count in nodes:
        for shaped in (False, True):
            topology = Topology.of(machine, count, scale=scale, shaped=shaped)
            with EmulatedCluster(topology) as cluster:
                for engine, accumulation in wanted:
                    spec = run_spec(count, accumulation, tokens, engine)
                    found = run(cluster, engine, spec, budget_s=8 if shaped else 2)
                    row = {
                        "name": engine.name,
                        "nodes": count,
                        "accumulation": accumulation,
                        "scale": scale,
                        "shaped": shaped,
                        "step_s": found.step_s,
                        "steps_s": found.steps_s,
                    }
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    if output:
                        with output.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    return rows


def report(rows: list[Row]) -> None:
    """Step time, its share of computing, and efficiency at each number of nodes."""
    times = {(row["name"], row["accumulation"], row["nodes"], row["shaped"]): row["step_s"] for row in rows}
    nodes = sorted({row["nodes"] for row in rows})
    table = Table("engine", "accumulation", *(f"{n} nodes: s, computing, efficiency" for n in nodes))
    for name, accumulation in {(row["name"], row["accumulation"]): None for row in rows}:
        cells = []
        for count in nodes:
            step = times[name, accumulation, count, True]
            computing = times[name, accumulation, count, False] / step
            efficiency = times[name, accumulation, nodes[0], True] / step
            cells.append(f"{step:.2f}  {computing:.0%}  {efficiency:.3f}")
        table.add_row(name, str(accumulation), *cells)
    console = Console(width=130)
    console.print(f"link rates x {rows[0]['scale']}")
    console.print(table)


def report_formula(nodes: list[int], accumulations: list[int]) -> None:
    """Efficiency against the first number of nodes by the bytes alone."""
    table = Table("engine", "accumulation", *(f"{8 * count} devices" for count in nodes))
    for engine, accumulation in rows_of(ENGINES, accumulations):
        times = [least_time(count, accumulation, engine) for count in nodes]
        table.add_row(engine.name, str(accumulation), *(f"{times[0] / time:.3f}" for time in times))
    console = Console(width=130)
    console.print("by formula")
    console.print(table)


def least_time(nodes: int, accumulation: int, engine: Engine) -> float:
    """Seconds of a step that is all communication, each level's links busy all the time."""
    spec = run_spec(1, accumulation, 8, engine).model_copy(update={"nodes": nodes})
    sent = traffic(spec, Layout.from_spec(spec), UNITS, busiest=True)
    rates = {level: getattr(spec.machine.links, level).bandwidth_bytes_per_s for level in LEVELS}
    parts = (sent.before_update(accumulation), sent.update)
    times = [max(part[level] / rates[level] for level in LEVELS) for part in parts]
    return float(sum(times))


if __name__ == "__main__":
    main()
