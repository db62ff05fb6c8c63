"""Compares the parts of a predicted step with those of a measured one, on the emulated cluster:

    python benchmarks/traces.py [--preset three_level] [--accumulation 2]

A first run on links without limits says what computing takes; the planner adds what messages take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from emulated_runs import Engine, run_spec

from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.step_time import MicroBatch
from frontrunner.parallelism.planner.trace import Measured, predicted_trace
from frontrunner.parallelism.profile_request import ProfileRequest
from frontrunner.parallelism.rendezvous import Rendezvous

REQUEST = ProfileRequest(2, 3, 0)
NODES, TOKENS = 2, 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="three_level")
    parser.add_argument("--accumulation", type=int, default=2)
    args = parser.parse_args()
    engine = Engine(args.preset, {"preset": args.preset})
    spec = run_spec(NODES, args.accumulation, TOKENS, engine)
    free, shaped = (_measured(spec, engine, shaped) for shaped in (False, True))
    parts = free["metadata"]["stages"][0]["parts_s"]
    each = [parts.get(name, 0.0) / spec.grad_accum_steps for name in ("forward", "backward", "recompute")]
    computing = MicroBatch(*(np.array([seconds]) for seconds in (*each, 0.0, 0.0)))
    text = predicted_trace(
        spec, Layout.from_spec(spec), Workload.of(spec), Measured(computing, parts["optimizer"])
    )
    predicted, found = (_by_thread(trace) for trace in (json.loads(text), shaped))
    steps = REQUEST.last - REQUEST.first + 1
    print(f"{'part':24} predicted   measured   difference")
    for thread in sorted(predicted.keys() | found.keys()):
        _row(thread, predicted.get(thread, 0.0), found.get(thread, 0.0) / steps)
    _row("step", json.loads(text)["metadata"]["step_time_s"], shaped["metadata"]["step_time_s"])


def _row(name: str, predicted: float, measured: float) -> None:
    ratio = f"{predicted / measured - 1:+10.1%}" if measured else "         -"
    print(f"{name:24} {predicted * 1e3:7.1f} ms {measured * 1e3:7.1f} ms {ratio}")


def _by_thread(trace: dict[str, Any]) -> dict[str, float]:
    """Seconds by part of computing, and by lane and level."""
    found: dict[str, float] = defaultdict(float)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            name = event["name"] if event["cat"] == names.COMPUTE else event["cat"]
            found[name] += event["dur"] / 1e6
    return found


def _measured(spec: RunSpec, engine: Engine, shaped: bool) -> dict[str, Any]:
    topology = Topology.of(load_machine("emulated"), NODES, scale=1.0, shaped=shaped)
    with tempfile.TemporaryDirectory() as folder, EmulatedCluster(topology) as cluster:
        cluster.call("traces:profiled", spec, engine, folder)
        (file,) = Path(folder).glob("profile/*.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


def profiled(place: Rendezvous, spec: RunSpec, engine: Engine, folder: str) -> None:
    """One rank's part."""
    from emulated_runs import make_trainer_of

    from frontrunner.parallelism.runtime.data import open_dataset
    from frontrunner.parallelism.runtime.profile import Profile

    trainer = make_trainer_of(place, engine, spec)
    profile = Profile(REQUEST, spec, place.rank, Path(folder), trainer.device)
    dataset = open_dataset(spec, split="train")
    for number in range(REQUEST.last):
        with profile.step(number + 1):
            trainer.step(number, dataset)
    trainer.settle()


if __name__ == "__main__":
    main()
