"""How tokens get to experts on an emulated cluster: flat or hierarchical, exact or int8.

    python benchmarks/experts.py [--nodes 2 4] [--scale 1.0] [--output FILE.jsonl]
    python benchmarks/experts.py --show FILE.jsonl

All rows train the same mixture of experts on the same samples, in turn, on one cluster of two packages of two
devices a node: every rank has a part of each layer's experts, and everything else is a replica of a node
(hsdp, bfloat16), so that the network mostly carries tokens. Bytes are what all ranks send in a step, as the
kernel counted and as the engine did. The peers are the code of megatron-core and DeepSpeed that carries
tokens, inside the same engine (``expert_peers``), whose messages only the kernel counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from emulated_runs import Engine, run
from expert_peers import PEERS
from rich.console import Console
from rich.table import Table

from frontrunner.configs.load import load_machine, load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS

PACKAGES = 2
MODEL = {
    "num_layers": 4,
    "hidden_size": 256,
    "num_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "linear_bias": False,
    "activation": "swiglu",
    "experts": {"num_experts": 64, "experts_per_token": 8, "ffn_hidden_size": 64},
}
ENGINE = Engine("native", {"preset": "hsdp"})
ROWS = {
    "hierarchical": {"dispatch": "hierarchical"},
    "hierarchical, int8": {"dispatch": "hierarchical", "dispatch_wire": "int8"},
    "flat": {"dispatch": "flat"},
    **{peer: {"dispatch": "flat"} for peer in PEERS},
}
Row = dict[str, Any]


def spec_of(nodes: int, tokens: int, layout: dict[str, Any]) -> RunSpec:
    devices = nodes * PACKAGES * 2
    text = {
        "name": "experts",
        "model": MODEL,
        "machine": {"extends": "emulated", "packages_per_node": PACKAGES},
        "nodes": nodes,
        "data": "synthetic",
        "layout": {"micro_batch_size": 1, "sharding": ENGINE.sharding, "expert": devices, **layout},
        "training": {"seq_len": tokens, "global_batch_size": devices, "steps": 1000, "precision": "bfloat16"},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(json.dumps(text))
        return load_run(str(path)).spec


def measure(
    nodes: list[int], names: list[str], tokens: int, scale: float, budget_s: float, output: Path | None
) -> list[Row]:
    rows = []
    for count in nodes:
        machine = load_machine("emulated").model_copy(update={"packages_per_node": PACKAGES})
        with EmulatedCluster(Topology.of(machine, count, scale=scale)) as cluster:
            for name in names:
                spec = spec_of(count, tokens, ROWS[name])
                found = run(
                    cluster,
                    Engine(name, ENGINE.sharding, dispatch=name if name in PEERS else None),
                    spec,
                    budget_s=budget_s,
                )
                row = {
                    "name": name,
                    "nodes": count,
                    "tokens": tokens,
                    "scale": scale,
                    **found._asdict(),
                    "step_s": found.step_s,
                }
                rows.append(row)
                print(json.dumps(row), flush=True)
                if output:
                    with output.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    return rows


def report(rows: list[Row]) -> None:
    console = Console(width=120)
    for nodes in sorted({row["nodes"] for row in rows}):
        found = {row["name"]: row for row in rows if row["nodes"] == nodes}
        flat = found.get("flat")
        table = Table(
            "dispatch", "s/step", "range", "of flat", *(f"MB {level}" for level in LEVELS), "network of flat"
        )
        for name, row in found.items():
            table.add_row(
                name,
                f"{row['step_s']:.2f}",
                f"{min(row['steps_s']):.2f}-{max(row['steps_s']):.2f}",
                f"{row['step_s'] / flat['step_s']:.2f}" if flat else "",
                *(_bytes(row, level) for level in LEVELS),
                _share(row, flat),
            )
        console.print(f"\n{nodes} nodes; bytes of a step as the kernel counted (as the engine did)")
        console.print(table)


def _share(row: Row, flat: Row | None) -> str:
    """Of the network's bytes, as the kernel counted."""
    if flat is None or not row["kernel_bytes"] or not flat["kernel_bytes"]:
        return ""
    return f"{row['kernel_bytes']['network'] / flat['kernel_bytes']['network']:.2f}"


def _bytes(row: Row, level: str) -> str:
    kernel = row["kernel_bytes"]
    counted = f"{kernel[level] / 1e6:.1f} " if kernel else ""
    return f"{counted}({row['engine_bytes'][level] / 1e6:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--tokens", type=int, default=64, help="tokens in a micro-batch")
    parser.add_argument("--scale", type=float, default=1.0, help="times the link rates")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of steps for each row")
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=[*ROWS], metavar="ROW")
    parser.add_argument("--output", type=Path, help="append each figure to this file as it is found")
    parser.add_argument("--show", type=Path, help="print the tables of such a file and measure nothing")
    args = parser.parse_args()
    if args.show:
        rows = [json.loads(line) for line in args.show.read_text().splitlines()]
    else:
        rows = measure(args.nodes, args.rows, args.tokens, args.scale, args.budget, args.output)
    report(rows)


if __name__ == "__main__":
    main()
