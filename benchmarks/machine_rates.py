"""Measures what eight processes of this machine compute and send at the same time; writes a machine file.

    python benchmarks/machine_rates.py --memory BYTES [--output benchmarks/small_gpt/machine.yaml]

The processes stand for four nodes of two devices. The planner reads the rates like those of a real machine.
All of them are measured here, none is fitted.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.launcher.ranks.local import launch
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.run_folder import folder as run_folder

NODES, PER_NODE = 4, 2
SIZES = (32, 64, 128, 256, 512)
_MESSAGE_BYTES = 8 * 2**20
_LEAST_S = 0.5
RUN = """\
model: {num_layers: 1, hidden_size: 64, num_heads: 2, vocab_size: 128, max_position_embeddings: 64}
machine: {extends: workstation, num_nodes: 4, packages_per_node: 1}
nodes: 4
data: synthetic
layout: {micro_batch_size: 1}
training: {seq_len: 64, global_batch_size: 8, steps: 1}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path(__file__).parent / "small_gpt" / "machine.yaml"
    parser.add_argument("--output", type=Path, default=default)
    parser.add_argument("--memory", type=int, required=True, help="bytes that a process may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "run.yaml").write_text(RUN)
        run_dir = Path(folder) / "rates"
        run_folder.create(run_dir, load_run(str(Path(folder) / "run.yaml")).spec)
        launch(run_dir, NODES * PER_NODE, target="machine_rates:measure")
        found = json.loads((run_dir / "rates.json").read_text())
    args.output.write_text(machine_file(found, args.memory))
    print(args.output.read_text())


def machine_file(rates: dict[str, float], memory_bytes: int) -> str:
    """The preset `workstation` with what was measured."""
    link = {"latency_s": rates["latency_s"]}
    today = datetime.date.today().isoformat()
    machine = {
        "extends": "workstation",
        "num_nodes": NODES,
        "packages_per_node": 1,
        "devices_per_package": PER_NODE,
        "device": {
            "name": "CPU process",
            "kind": "cpu",
            "memory_bytes": memory_bytes,
            "limit_memory": True,
            "memory_bandwidth_bytes_per_s": rates["memory"],
        },
        "links": {
            "package": {"bandwidth_bytes_per_s": rates["pair"], **link},
            "node": {"bandwidth_bytes_per_s": rates["pair"], **link},
            "network": {"bandwidth_bytes_per_s": rates["message"], **link},
        },
        "software": {
            today[:4]: {
                "gemm": [{"size": size, "flops_per_s": rates[f"gemm {size}"]} for size in SIZES],
                "gemm_factor": 1.0,
                "attention_flops_per_s": rates["attention"],
                "memory_efficiency": 1.0,
                "rings": {
                    "package": rates["pair"],
                    "node": rates["pair"],
                    "whole_nodes": rates["world"],
                    "across_nodes": rates["across"],
                    "across_latency_s": rates["latency_s"],
                    "point_to_point": rates["message"],
                },
            }
        },
    }
    measured = "# Measured by machine_rates.py, eight processes on two cores; not of any other machine.\n"
    return measured + yaml.safe_dump(machine, sort_keys=False)


def measure(spec: RunSpec, run_dir: Path, rendezvous: Rendezvous, on_record: object = None) -> None:
    """One rank's part; rank 0 writes the means of all to ``run_dir/rates.json``."""
    initialize(Layout.from_spec(spec), rendezvous, select_device("cpu", rendezvous.local_rank))
    found = _computing() | _links(rendezvous.rank, rendezvous.world_size)
    everyone: list[Any] = [None] * rendezvous.world_size
    dist.all_gather_object(everyone, found)
    if rendezvous.rank == 0:
        rates = {key: statistics.mean(each[key] for each in everyone) for key in found}
        (run_dir / "rates.json").write_text(json.dumps(rates))
    dist.destroy_process_group()


def _computing() -> dict[str, float]:
    """FLOP/s of products by size and of attention, bytes/s of a copy."""
    found = {}
    for size in SIZES:
        matrix = torch.ones(size, size)
        found[f"gemm {size}"] = 2 * size**3 / _timed(partial(torch.mm, matrix, matrix))
    block = torch.ones(_MESSAGE_BYTES // 4)
    other = torch.empty_like(block)  # written once before: new pages are another matter
    found["memory"] = 2 * _MESSAGE_BYTES / _timed(partial(other.copy_, block))
    query = torch.ones(4, 8, 64, 32)
    attention = torch.nn.functional.scaled_dot_product_attention
    seconds = _timed(lambda: attention(query, query, query, is_causal=True))
    found["attention"] = 2 * query.numel() * query.size(2) / seconds  # the causal half
    return found


def _links(rank: int, world: int) -> dict[str, float]:
    """Bytes/s of rings in a node, through all devices and through one of each node, and of a message."""
    pair, _ = dist.new_subgroups(PER_NODE)
    like = [list(range(first, world, PER_NODE)) for first in range(PER_NODE)]
    across, _ = dist.new_subgroups_by_enumeration(like)
    block = torch.ones(_MESSAGE_BYTES // 4)
    arrived = torch.empty_like(block)

    def message() -> None:
        sending = dist.isend(block, (rank + PER_NODE) % world)
        receiving = dist.irecv(arrived, (rank - PER_NODE) % world)
        assert sending and receiving
        receiving.wait()
        sending.wait()

    word, words = torch.ones(1), torch.empty(world)
    return {
        "pair": _ring(pair),
        "world": _ring(dist.group.WORLD),
        "across": _ring(across),
        "message": _MESSAGE_BYTES / _together(message),
        "latency_s": _together(lambda: dist.all_gather_into_tensor(words, word), 50) / (world - 1),
    }


def _ring(group: Any) -> float:
    ranks = dist.get_world_size(group)
    shard = torch.ones(_MESSAGE_BYTES // 4 // ranks)
    whole = torch.empty(shard.numel() * ranks)
    seconds = _together(lambda: dist.all_gather_into_tensor(whole, shard, group=group))
    return _MESSAGE_BYTES * (ranks - 1) / ranks / seconds


def _timed(work: Callable[[], object]) -> float:
    """Seconds of one call while all ranks call it, as often as each can."""
    work()
    dist.barrier()
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < _LEAST_S:
        work()
        calls += 1
    return (time.perf_counter() - begin) / calls


def _together(work: Callable[[], object], calls: int = 8) -> float:
    """The same of a collective, which every rank must call as often."""
    work()
    dist.barrier()
    begin = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - begin) / calls


if __name__ == "__main__":
    main()
