"""Measures how fast records are analysed: a study of many runs, compared with pandas.

    python benchmarks/analysis.py --runs 10000 --gigabytes 1.0

Writes a study of that size (to --folder, which is kept). Then separate processes measure two things: reading
and analysing it with ``frontrunner.analysis`` (steady states, figures of every run, scaling), and reading it
with pandas and taking the median step of each run. Time and peak memory are of the whole process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frontrunner.configs.load import load_run
from frontrunner.parallelism.layout import Layout


def write_study(folder: Path, runs: int, size: float) -> int:
    """Run folders with records as the runtime writes them; their bytes."""
    total = 0
    for index in range(runs):
        nodes = 2 ** (index % 4)
        spec = load_spec(nodes)
        lines = [json.dumps({"kind": "header"} | spec)]
        a_step = len(_step(1, nodes, index)) + 1
        steps = max(8, int((size / runs - len(lines[0])) / a_step))
        lines += [_step(step, nodes, index) for step in range(1, steps + 1)]
        place = folder / f"run-{index:05d}"
        place.mkdir(parents=True)
        text = "\n".join(lines) + "\n"
        (place / "records.jsonl").write_text(text)
        total += len(text)
    return total


_specs: dict[int, dict[str, Any]] = {}


def load_spec(nodes: int) -> dict[str, Any]:
    if nodes not in _specs:
        overrides = [f"nodes={nodes}", "training.global_batch_size=640", "layout.pipeline=8"]
        spec = load_run("gpt-22b-frontier", overrides).spec
        described = Layout.from_spec(spec).describe()
        _specs[nodes] = {"spec": spec.model_dump(mode="json"), "layout": described}
    return _specs[nodes]


def _step(step: int, nodes: int, run: int) -> str:
    """A record with every key of the runtime's."""
    seconds = (300 if step > 1 else 900) / nodes * (1 + (step * 7919 + run) % 97 / 9700)
    return json.dumps(
        {
            "kind": "step",
            "step": step,
            "loss": 11 / (1 + step / 50),
            "learning_rate": 6e-5,
            "gradient_norm": 1.0 + step % 13 / 10,
            "step_time_s": seconds,
            "forward_backward_s": 0.9 * seconds,
            "communication_exposed_s": 0.08 * seconds,
            "optimizer_s": 0.02 * seconds,
            "tokens_per_s_per_device": 640 * 2048 / seconds / nodes / 8,
            "model_flops_per_s_per_device": 640 * 2048 / seconds / nodes / 8 * 1.4e11,
            "hardware_flops_per_s_per_device": 640 * 2048 / seconds / nodes / 8 * 1.9e11,
            "mfu": 0.25,
            "skipped": False,
            "bytes_sent": {"package": 1.1e9, "node": 5.5e8, "network": 2.2e8},
            "peak_memory_bytes": 41_000_000_000,
            "busy_s": 0.8 * seconds,
            "slowest_rank": step % 8,
            "slowest_busy_s": 0.9 * seconds,
        }
    )


def ours(folder: Path) -> dict[str, Any]:
    from frontrunner.analysis.analyze import analyze
    from frontrunner.analysis.read import read

    answer = analyze(read([folder])).answer
    return {"runs": len(answer["runs"]), "steps": answer["steps"], "groups": len(answer["scaling"])}


def with_pandas(folder: Path) -> dict[str, Any]:
    import pandas as pd

    medians, steps = [], 0
    for path in sorted(folder.glob("*/records.jsonl")):
        table = pd.read_json(path, lines=True)
        table = table[table["kind"] == "step"].drop_duplicates("step", keep="last")
        medians.append(table["step_time_s"].iloc[1:].median())
        steps += len(table)
    return {"runs": len(medians), "steps": steps}


def measure(function: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """What it found, in a process of its own: seconds, and the most memory that it took."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (function, folder))


def _measured(function: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    begun, computing = time.perf_counter(), time.process_time()
    found = function(folder)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - computing
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_memory_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="where the study is kept (default: nowhere)")
    parser.add_argument("--without-pandas", action="store_true")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="study-"))
    if not any(folder.glob("*/records.jsonl")):
        print(
            f"{write_study(folder, given.runs, given.gigabytes * 1e9) / 1e9:.2f} GB written to {folder}",
            flush=True,
        )
    print(json.dumps({"frontrunner": measure(ours, folder)}), flush=True)
    if not given.without_pandas:
        print(json.dumps({"pandas": measure(with_pandas, folder)}), flush=True)
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
