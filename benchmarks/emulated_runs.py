"""Runs one model on an emulated cluster, measured from inside (times, counters) and by the kernel."""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from emulated_cluster.cluster import EmulatedCluster

from frontrunner.configs.load import load_run
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS, Layout
from frontrunner.parallelism.planner.traffic import Units
from frontrunner.parallelism.rendezvous import Rendezvous

#: 6.3 M parameters in 8 layers.
MODEL = {
    "num_layers": 8,
    "hidden_size": 256,
    "num_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
_HIDDEN, _LAYERS = 256, 8
_LAYER = 12 * _HIDDEN**2 + 13 * _HIDDEN
#: The same, by what is gathered together; positions travel with the first layer, the last norm with the last.
UNITS = Units(
    layers=_LAYERS * _LAYER + 64 * _HIDDEN + 2 * _HIDDEN,
    first_layer=_LAYER + 64 * _HIDDEN,
    embedding=128 * _HIDDEN,
    output=128 * _HIDDEN,
    tied=True,
)
_WARM_UP = 1  # steps: the first fills caches and opens connections
Bytes = Mapping[str, float]


class Measured(NamedTuple):
    """A run's figures; bytes are what all packages together send in a step, by level.

    ``forward_backward_s`` is the first part of a step, which hides some communication; ``update_bytes`` is
    the part of ``engine_bytes`` after the optimizer. Both byte counts are None for engines whose messages do
    not pass through our transport.
    """

    steps_s: list[float]
    forward_backward_s: float
    losses: list[float]
    kernel_bytes: Bytes | None
    engine_bytes: Bytes | None
    update_bytes: Bytes | None

    @property
    def step_s(self) -> float:
        return statistics.median(self.steps_s)


class OfRank(NamedTuple):
    """What one rank reports about its steps, including warm-up."""

    steps_s: list[float]
    forward_backward_s: list[float]
    losses: list[float]
    sent: Bytes | None
    sent_in_update: Bytes | None


class Engine(NamedTuple):
    """What rows of a table differ in."""

    name: str
    sharding: dict[str, Any]
    engine: str = "native"
    gradient_dtype: str = "float32"
    deepspeed_defaults: bool = False
    """Keep DeepSpeed's own limits on live parameters and prefetching."""
    dispatch: str | None = None
    """A peer's way to send tokens to experts."""


def run_spec(nodes: int, accumulation: int, tokens: int, engine: Engine) -> RunSpec:
    """One run with a sequence of ``tokens`` tokens in a micro-batch."""
    run = {
        "name": "emulated",
        "model": MODEL,
        "machine": "emulated",
        "nodes": nodes,
        "engine": engine.engine,
        "data": "synthetic",
        "layout": {"micro_batch_size": 1, "sharding": engine.sharding},
        "training": {
            "seq_len": tokens,
            "global_batch_size": nodes * 8 * accumulation,
            "steps": 1000,
            "precision": "bfloat16",
            "gradient_dtype": engine.gradient_dtype,
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text(json.dumps(run))
        return load_run(str(path)).spec


def run(cluster: EmulatedCluster, engine: Engine, spec: RunSpec, budget_s: float = 15.0) -> Measured:
    """Measure steps for about ``budget_s``, without the first one.

    The kernel's bytes are the difference of two runs of different lengths, which cancels the cost of start
    and end; None if steps are so slow that only one short run is possible.
    """
    before = cluster.bytes_sent()
    ranks = cluster.call("emulated_runs:measure", engine, spec, _WARM_UP + 1)
    middle = cluster.bytes_sent()
    more = round(budget_s / max(_slowest(ranks, "steps_s")))
    kernel = None
    if more > 0:
        steps = 1 + min(8, max(2, more))
        ranks = cluster.call("emulated_runs:measure", engine, spec, _WARM_UP + steps)
        after = cluster.bytes_sent()
        kernel = {
            level: (after[level] - middle[level] - (middle[level] - before[level])) / (steps - 1)
            for level in LEVELS
        }
    return Measured(
        steps_s=_slowest(ranks, "steps_s"),
        forward_backward_s=statistics.median(_slowest(ranks, "forward_backward_s")),
        losses=ranks[0].losses,
        kernel_bytes=kernel,
        engine_bytes=_total([rank.sent for rank in ranks]),
        update_bytes=_total([rank.sent_in_update for rank in ranks]),
    )


def _slowest(ranks: list[OfRank], part: str) -> list[float]:
    """Of each measured step the time of the rank that took longest."""
    return [max(times) for times in zip(*(getattr(rank, part)[_WARM_UP:] for rank in ranks), strict=True)]


def peak_tensor_bytes(cluster: EmulatedCluster, engine: Engine, spec: RunSpec) -> int:
    """The most bytes that tensors of a rank take at once in a step, states included; the largest rank's."""
    peaks: list[int] = cluster.call("emulated_runs:track_memory", engine, spec)
    return max(peaks)


def measure(place: Rendezvous, engine: Engine, spec: RunSpec, steps: int) -> OfRank:
    """One rank's part of :func:`run`."""
    from frontrunner.parallelism.runtime.data import open_dataset
    from frontrunner.parallelism.runtime.trainer import Trainer

    trainer = make_trainer_of(place, engine, spec)
    dataset = open_dataset(spec, split="train")
    found = OfRank([], [], [], None, None)
    for number in range(steps):
        loss, _, timing = trainer.step(number, dataset)
        found.steps_s.append(timing.step)
        found.forward_backward_s.append(timing.forward_backward)
        found.losses.append(loss)
    if not isinstance(trainer, Trainer):
        return found
    sent = trainer.sent
    trainer.settle()
    trainer.transport.take()
    trainer.engine.gather_updated()  # once more, so that it is counted apart
    trainer.settle()
    return found._replace(sent=sent, sent_in_update=trainer.transport.take()[0])


def track_memory(place: Rendezvous, engine: Engine, spec: RunSpec) -> int:
    """One rank's part of :func:`peak_tensor_bytes`: the second step's peak, when all states exist."""
    import torch
    from torch.distributed._tools.mem_tracker import MemTracker

    from frontrunner.parallelism.runtime.data import open_dataset

    most = 0

    class Peak(MemTracker):
        """Keeps the largest total alone; statistics by module take ten times as long as the step."""

        def _update_peak_stats(self, peak_state: Any) -> None:
            nonlocal most
            now = self._curr_mem_snap.get(torch.device("cpu"))  # none before the first tensor
            most = max(most, now["Total"] if now else 0)

    dataset = open_dataset(spec, split="train")
    with Peak() as tracker:
        trainer = make_trainer_of(place, engine, spec)
        trainer.step(0, dataset)
        tracker.reset_mod_stats()  # it would refuse a second step
        most = 0  # what building took, whole models of peers among it, is not a step's
        trainer.step(1, dataset)
        trainer.settle()
    return most


def make_trainer_of(place: Rendezvous, engine: Engine, spec: RunSpec) -> Any:
    from frontrunner.parallelism.runtime.device import select_device
    from frontrunner.parallelism.runtime.engines import make_trainer
    from frontrunner.parallelism.runtime.process_groups import initialize

    if engine.deepspeed_defaults:
        _leave_deepspeed_alone()
    device = select_device("cpu", place.local_rank)
    made = make_trainer(
        spec, initialize(Layout.from_spec(spec), place, device, data=spec.engine != "native"), device
    )
    if engine.dispatch is not None:
        importlib.import_module("expert_peers").exchange(made, engine.dispatch)
    return made


def _leave_deepspeed_alone() -> None:
    """Take our limits for ZeRO-3 out of its configuration."""
    from frontrunner.parallelism.runtime.baselines.deepspeed_config import deepspeed_config

    def with_defaults(*args: Any) -> dict[str, Any]:
        config = deepspeed_config(*args)
        zero = config["zero_optimization"]
        config["zero_optimization"] = {key: zero[key] for key in zero if not key.startswith("stage3_")}
        return config

    module: Any = importlib.import_module("frontrunner.parallelism.runtime.baselines.deepspeed")
    module.deepspeed_config = with_defaults


def _total(ranks: Sequence[Bytes | None]) -> Bytes | None:
    counted = [rank for rank in ranks if rank is not None]
    return {level: sum(rank[level] for rank in counted) for level in LEVELS} if counted else None
