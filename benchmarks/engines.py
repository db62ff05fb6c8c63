"""Step times of frontrunner's engine and its peers on an emulated cluster, relative to three_level.

    python benchmarks/engines.py [--accumulation 1 4] [--scale 1.0 0.25] [--output FILE.jsonl]
    python benchmarks/engines.py --show FILE.jsonl

All run the same model (8 layers of hidden size 256, 6.3 M parameters, bfloat16) on the same samples, in turn,
on one cluster of 2 nodes x 4 packages x 2 devices. Each peer has its best settings. DeepSpeed and FSDP2
prefetch one layer and hold two, and reduce in bfloat16. gloo's reduce-scatter is an all-reduce inside, so
they get one that sends as little as RCCL's. They wait for it: a device would overlap it, which favours
our own rows. HSDP only sums its replicas in the last micro-batch. Rows below the line trade memory for speed
and do not count for the ratios. Memory is the peak of tensors in a step, measured in a separate run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from emulated_runs import UNITS, Bytes, Engine, peak_tensor_bytes, run, run_spec
from predictions import predicted_peak_bytes, predicted_step_s
from rich.console import Console
from rich.table import Table

from frontrunner.configs.load import load_machine
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.runtime.baselines.deepspeed_config import deepspeed_config

NODES = 2
FLOATS = {"weights": "bfloat16", "gradients": "bfloat16", "network": "bfloat16"}
PACKAGE = {"weights": 2, "gradients": 2, "optimizer": 2}
SHARDED = [
    Engine("three_level, int8/int4", {"preset": "three_level"}),
    Engine("three_level, bfloat16", {"preset": "three_level", "wire": FLOATS}),
    Engine("own zeropp", {"preset": "zeropp"}),
    Engine("own zero3", {"preset": "zero3"}),
    Engine("own hsdp, node", {"preset": "hsdp"}),
    Engine("own hsdp, package", PACKAGE),
    Engine("DeepSpeed ZeRO-3", {"preset": "zero3"}, "deepspeed", "bfloat16"),
    Engine("DeepSpeed hpZ, node", {"preset": "zero3", "secondary": "node"}, "deepspeed", "bfloat16"),
    Engine("FSDP2", {"preset": "zero3"}, "fsdp", "bfloat16"),
    Engine("HSDP, node", {"preset": "hsdp"}, "fsdp", "bfloat16"),
    Engine("HSDP, package", PACKAGE, "fsdp", "bfloat16"),
]
WITH_MORE_MEMORY = [
    Engine("DeepSpeed ZeRO-3, its defaults", {"preset": "zero3"}, "deepspeed", "bfloat16", True),
    Engine("DeepSpeed ZeRO-1", {"preset": "zero1"}, "deepspeed", "bfloat16"),
    Engine("FSDP2, no reshard", {"preset": "zero2"}, "fsdp", "bfloat16"),
]
BOUNDED = ("three_level, int8/int4", "three_level, bfloat16")  # rows that are held against the bound
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [engine.name for engine in SHARDED + WITH_MORE_MEMORY]
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=64, help="tokens in a micro-batch")
    parser.add_argument(
        "--scale",
        type=float,
        nargs="*",
        default=[1.0],
        help="times the link rates; none: memory and computing",
    )
    parser.add_argument("--rows", nargs="+", default=names, choices=names, metavar="ROW")
    parser.add_argument("--output", type=Path, help="append each figure to this file as it is found")
    parser.add_argument("--show", type=Path, help="print the tables of such a file and measure nothing")
    args = parser.parse_args()
    if args.show:
        rows = [json.loads(line) for line in args.show.read_text().splitlines()]
    else:
        chosen = [engine for engine in SHARDED + WITH_MORE_MEMORY if engine.name in args.rows]
        rows = measure(chosen, args.accumulation, args.tokens, args.scale, args.output)
    report(rows)


def measure(
    engines: list[Engine], accumulations: list[int], tokens: int, scales: list[float], output: Path | None
) -> list[Row]:
    """Every row at every setting; on unshaped links the memory of each, and the computing of our own."""
    rows: list[Row] = []

    def keep(**row: Any) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        if output:
            with output.open("a") as file:
                file.write(json.dumps(row) + "\n")

    machine = load_machine("emulated")
    with EmulatedCluster(Topology.of(machine, NODES, shaped=False)) as cluster:
        for engine in engines:
            peak = peak_tensor_bytes(cluster, engine, run_spec(NODES, 1, tokens, engine))
            keep(kind="memory", name=engine.name, peak_bytes=peak)
            for accumulation in accumulations if engine.engine == "native" else ():
                found = run(cluster, engine, run_spec(NODES, accumulation, tokens, engine))
                keep(
                    kind="computing",
                    name=engine.name,
                    accumulation=accumulation,
                    forward_backward_s=found.forward_backward_s,
                    step_s=found.step_s,
                )
    for scale in scales:
        topology = Topology.of(machine, NODES, scale=scale)
        with EmulatedCluster(topology) as cluster:
            for accumulation in accumulations:
                for engine in engines:
                    found = run(cluster, engine, run_spec(NODES, accumulation, tokens, engine))
                    setting = {"name": engine.name, "accumulation": accumulation, "scale": scale}
                    rates = {"rates": topology.rates}
                    keep(kind="row", **setting, **rates, **found._asdict(), step_s=found.step_s)
    return rows


def report(rows: list[Row]) -> None:
    """A table for each setting, with the bound of the rows that are held against it."""
    console = Console(width=150)
    print_settings(console, [e for e in SHARDED + WITH_MORE_MEMORY if any(r["name"] == e.name for r in rows)])
    peaks = {row["name"]: row["peak_bytes"] for row in rows if row["kind"] == "memory"}
    computing = {(row["name"], row["accumulation"]): row for row in rows if row["kind"] == "computing"}
    settings = {(row["scale"], row["accumulation"]): None for row in rows if row["kind"] == "row"}
    for scale, accumulation in settings:
        found = {
            row["name"]: row
            for row in rows
            if row["kind"] == "row" and (row["scale"], row["accumulation"]) == (scale, accumulation)
        }
        first = next(iter(found.values()))
        table = Table(
            "engine",
            "s/step",
            "range",
            "planner",
            "ratio",
            "peak MB",
            "planner",
            "MB package",
            "MB node",
            "MB network",
            "last loss",
        )
        for engine in SHARDED + WITH_MORE_MEMORY:
            if engine is WITH_MORE_MEMORY[0]:
                table.add_section()
            if engine.name in found:
                row = found[engine.name]
                step_s, peak_bytes = _predicted(engine, row, computing.get((engine.name, accumulation)))
                table.add_row(
                    engine.name,
                    f"{row['step_s']:.2f}",
                    f"{min(row['steps_s']):.2f}-{max(row['steps_s']):.2f}",
                    step_s,
                    f"{row['step_s'] / first['step_s']:.2f}",
                    f"{peaks[engine.name] / 1e6:.1f}" if engine.name in peaks else "",
                    peak_bytes,
                    *_traffic(row),
                    f"{row['losses'][1]:.3f}",
                )
        console.print(
            f"\naccumulation {accumulation}, link rates x {scale}; bytes sent in a step by all packages, as "
            "the kernel counted (as the engine did); loss of the second step"
        )
        console.print(table)
        packages = 4 * NODES
        for name in BOUNDED:
            if name in found and (name, accumulation) in computing:
                _print_bound(console, found[name], computing[name, accumulation], packages)


def _predicted(engine: Engine, row: Row, computing: Row | None) -> tuple[str, str]:
    """What the planner says of the step and the peak: known of our own engine."""
    if engine.engine != "native":
        return "", ""
    spec = run_spec(NODES, row["accumulation"], 64, engine)
    step = f"{predicted_step_s(spec, computing, row['scale']):.2f}" if computing else ""
    return step, f"{predicted_peak_bytes(spec) / 1e6:.1f}"


def print_settings(console: Console, engines: list[Engine]) -> None:
    """How each peer is set up."""
    for engine in engines:
        spec = run_spec(NODES, 4, 64, engine)
        layout = Layout.from_spec(spec)
        if engine.engine == "deepspeed":
            config = deepspeed_config(spec, layout, int(UNITS.first_layer))
            zero = config["zero_optimization"]
            if engine.deepspeed_defaults:
                zero = {key: value for key, value in zero.items() if not key.startswith("stage3_")}
            text = ", ".join(f"{key} {value}" for key, value in (zero | config["data_types"]).items())
        elif engine.engine == "fsdp":
            text = (
                f"fully_shard over {layout.optimizer} of {layout.data} ranks, a unit a layer, one fetched "
                f"ahead, reshard_after_forward {layout.weights > 1}, reduce_dtype {engine.gradient_dtype}, "
                "gradients scattered in each micro-batch"
                + (", replicas summed in the last" if layout.optimizer < layout.data else "")
            )
        else:
            wires = spec.layout.sharding.wires("bfloat16")
            text = (
                f"degrees {layout.weights}, {layout.gradients}, {layout.optimizer}; wires {wires.weights}, "
                f"{wires.gradients}, {wires.network}; gradients summed in {engine.gradient_dtype}"
            )
        console.print(f"{engine.name}: {text}")


def _traffic(row: Row) -> list[str]:
    kernel, engine = row["kernel_bytes"], row["engine_bytes"]
    return [
        (f"{kernel[level] / 1e6:.1f}" if kernel else "") + (f" ({engine[level] / 1e6:.1f})" if engine else "")
        for level in ("package", "node", "network")
    ]


def _print_bound(console: Console, row: Row, computing: Row, packages: int) -> None:
    """The least time of a step: each part takes as long as what is slowest in it, and parts do not overlap.

    Clipping by the global norm lies between them: no weight can travel before the last gradient arrived.
    """

    def seconds(sent: Bytes) -> dict[str, float]:
        return {level: sent[level] / packages / row["rates"][level] for level in sent}

    update = row["update_bytes"]
    before = seconds({level: row["engine_bytes"][level] - update[level] for level in update})
    before["computing"] = computing["forward_backward_s"]
    after = seconds(update)
    bound = max(before.values()) + max(after.values())
    console.print(
        f"{row['name']}: bound {bound:.2f} s = forward and backward ("
        + ", ".join(f"{name} {value:.2f}" for name, value in before.items())
        + ") + update ("
        + ", ".join(f"{name} {value:.2f}" for name, value in after.items())
        + f"); measured {row['step_s'] / bound:.2f} of it"
    )


if __name__ == "__main__":
    main()
