"""Step time of each sharding preset and engine on an emulated cluster, as ratios to three_level.

    python benchmarks/engines.py [--accumulation 1 4] [--scale 1.0] [--rounds 3]

All run the same model (8 layers of hidden size 256, 6.3 M parameters, bfloat16) on the same samples, in
turn, on one cluster of 2 nodes x 4 packages x 2 devices. Peak memory is that of the states that a rank
keeps and, at most, two gathered units.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology, load_machine
from rich.console import Console
from rich.table import Table

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous

MODEL = {
    "num_layers": 8,
    "hidden_size": 256,
    "num_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
FLOATS = {"weights": "bfloat16", "gradients": "bfloat16", "network": "bfloat16"}
ROWS: dict[str, dict[str, Any]] = {
    "three_level, int8/int4": {"preset": "three_level"},
    "three_level, bfloat16": {"preset": "three_level", "wire": FLOATS},
    "zeropp": {"preset": "zeropp"},
    "zero3": {"preset": "zero3"},
    "hsdp over the node": {"preset": "hsdp"},
    "hsdp over the package": {"weights": 2, "gradients": 2, "optimizer": 2},
}


class Measured(NamedTuple):
    """A row's figures; bytes are those that all packages send in a step, by level."""

    step_s: float
    losses: list[float]
    kernel_bytes: dict[str, float]
    engine_bytes: dict[str, float]
    held_bytes: int


def measure(place: Rendezvous, spec: RunSpec, steps: int) -> tuple[Any, ...]:
    """On one rank: times and losses of the steps, bytes by level sent in the last, bytes kept."""
    from frontrunner.parallelism.runtime.data import open_dataset
    from frontrunner.parallelism.runtime.device import select_device
    from frontrunner.parallelism.runtime.process_groups import initialize
    from frontrunner.parallelism.runtime.trainer import Trainer

    device = select_device("cpu", place.local_rank)
    trainer = Trainer(spec, initialize(Layout.from_spec(spec), place, device), device)
    dataset = open_dataset(spec, split="train")
    times, losses = [], []
    for number in range(steps):
        loss, _, timing = trainer.step(number, dataset)
        times.append(timing.step)
        losses.append(loss)
    return times, losses, trainer.average_sent(), sum(trainer.optimizer.bytes_held().values())


def run_spec(nodes: int, accumulation: int, tokens: int, sharding: dict[str, Any]) -> RunSpec:
    """One row's run, with one sequence of ``tokens`` tokens in a micro-batch."""
    run = {
        "name": "engines",
        "model": MODEL,
        "machine": "emulated",
        "nodes": nodes,
        "data": "synthetic",
        "layout": {"micro_batch_size": 1, "sharding": sharding},
        "training": {
            "seq_len": tokens,
            "global_batch_size": nodes * 8 * accumulation,
            "steps": 1000,
            "precision": "bfloat16",
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(json.dumps(run))
        return load_run(str(path)).spec


def run_row(cluster: EmulatedCluster, spec: RunSpec, steps: int) -> Measured:
    """Run one row twice, for 2 and for ``steps`` steps: the difference is what steps alone cost."""
    counts = []
    for length in (2, steps):
        before = cluster.bytes_sent()
        ranks = cluster.call("engines:measure", spec, length)
        after = cluster.bytes_sent()
        counts.append({level: after[level] - before[level] for level in after})
    times, losses, sent, held = ranks[0]
    per_step = {level: (counts[1][level] - counts[0][level]) / (steps - 2) for level in counts[0]}
    total = {level: value * spec.world_size for level, value in sent.items()}
    return Measured(statistics.median(times[1:]), losses, per_step, total, held)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--scale", type=float, default=1.0, help="times the link rates of the machine file")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    args = parser.parse_args()
    console = Console()
    topology = Topology.of(load_machine("emulated"), args.nodes, scale=args.scale)
    with EmulatedCluster(topology) as cluster:
        for accumulation in args.accumulation:
            table = Table(
                "sharding", "s/step", "ratio", "MB package", "MB node", "MB network", "MB held", "last loss"
            )
            first = None
            for name in args.rows:
                row = run_row(
                    cluster, run_spec(args.nodes, accumulation, args.tokens, ROWS[name]), args.steps
                )
                first = first or row
                traffic = (
                    f"{row.kernel_bytes[k] / 1e6:.2f} ({row.engine_bytes[k] / 1e6:.2f})"
                    for k in row.kernel_bytes
                )
                table.add_row(
                    name,
                    f"{row.step_s:.2f}",
                    f"{row.step_s / first.step_s:.2f}",
                    *traffic,
                    f"{row.held_bytes / 1e6:.1f}",
                    f"{row.losses[-1]:.3f}",
                )
            console.print(
                f"accumulation {accumulation}, links x {args.scale}; sent per step by all: kernel (engine)"
            )
            console.print(table)


if __name__ == "__main__":
    main()
