"""How many kernels a step would launch on a device, and the processor time that a step costs on the host.

    python benchmarks/launches.py [--layers 8] [--accumulation 4] [--rows ROW ...]

Counted on CPU ranks of an unshaped emulated cluster (2 nodes x 4 packages x 2 devices), by who asked for it.
An operator counts as one launch, unless it only makes a view or memory without values. A kernel of the wire
formats counts as one, as on a device, and so does an operator on a list (``_foreach_*``, fused AdamW): on a
device those take one launch for some 30 to 100 tensors. Collectives are counted apart.

The model is so small that its arithmetic costs little, so that the processor time of a step, measured without
counting, is mostly the host's own work, with that of gloo's threads.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from emulated_cluster.cluster import EmulatedCluster
from emulated_cluster.topology import Topology
from emulated_runs import MODEL, Engine, make_trainer_of, run_spec
from rich.console import Console
from rich.table import Table

from frontrunner.configs.load import load_machine
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.rendezvous import Rendezvous

NODES = 2
ENGINES = [
    Engine("three_level, int8/int4", {"preset": "three_level"}),
    Engine("own zero3", {"preset": "zero3"}),
    Engine("own hsdp, node", {"preset": "hsdp"}),
    Engine("own ddp", {"preset": "ddp"}),
    Engine("FSDP2", {"preset": "zero3"}, "fsdp", "bfloat16"),
    Engine("HSDP, node", {"preset": "hsdp"}, "fsdp", "bfloat16"),
    Engine("DeepSpeed ZeRO-3", {"preset": "zero3"}, "deepspeed", "bfloat16"),
    Engine("DeepSpeed ZeRO-1", {"preset": "zero1"}, "deepspeed", "bfloat16"),
]
STEPS = 6
#: The innermost of these files or folders on the stack asked for a launch; autograd's own thread has none.
ASKED_BY = {
    "engine": ("runtime/sharding/", "runtime/wire/", "distributed/fsdp/", "deepspeed/"),
    "optimizer": ("runtime/sharding/optimizer", "torch/optim/"),
    "model": ("runtime/gpt/", "megatron/core/", "torch/autograd/graph"),
}
NO_LAUNCH = ("empty", "new_empty", "_unsafe_view", "resize_", "set_", "detach", "_local_scalar")
PARTS = ("model", "engine", "optimizer", "rest", "collectives")


class Launches(NamedTuple):
    """Of one rank in one step; ``host_s`` is processor time."""

    counts: Counter[str]
    host_s: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [engine.name for engine in ENGINES]
    parser.add_argument("--layers", type=int, default=MODEL["num_layers"])
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--rows", nargs="+", default=names, choices=names, metavar="ROW")
    args = parser.parse_args()
    table = Table("engine", *PARTS, "launches", "to the first", "host ms a step", "to the first")
    first: tuple[int, float] | None = None
    with EmulatedCluster(Topology.of(load_machine("emulated"), NODES, shaped=False)) as cluster:
        for engine in (engine for engine in ENGINES if engine.name in args.rows):
            spec = small(run_spec(NODES, args.accumulation, 8, engine), args.layers)
            ranks: list[Launches] = cluster.call("launches:measure", engine, spec)
            counts = max((rank.counts for rank in ranks), key=lambda counts: counts.total())
            launched = counts.total() - counts["collectives"]
            host_ms = 1000 * statistics.median(rank.host_s for rank in ranks)
            first = first or (launched, host_ms)
            ratios = launched / first[0], host_ms / first[1]
            row = [str(counts[part]) for part in PARTS]
            table.add_row(
                engine.name, *row, str(launched), f"{ratios[0]:.2f}", f"{host_ms:.0f}", f"{ratios[1]:.2f}"
            )
    Console(width=120).print(table)


def small(spec: RunSpec, layers: int) -> RunSpec:
    """The same run with matrices that cost almost nothing."""
    size = {"num_layers": layers, "hidden_size": 64, "num_heads": 4, "ffn_hidden_size": 256}
    return spec.model_copy(update={"model": spec.model.model_copy(update=size)})


def measure(place: Rendezvous, engine: Engine, spec: RunSpec) -> Launches:
    """One rank's part: launches of a step, and the median processor time of others."""
    from frontrunner.parallelism.runtime.data import open_dataset

    trainer = make_trainer_of(place, engine, spec)
    dataset = open_dataset(spec, split="train")
    host = []
    for number in range(STEPS):
        began = time.process_time()
        trainer.step(number, dataset)
        host.append(time.process_time() - began)
    with counting() as counts:
        trainer.step(STEPS, dataset)
        trainer.settle()
    return Launches(counts, statistics.median(host[1:]))


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts what would be launched while the block runs."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

    from frontrunner.parallelism.runtime.wire import block_quantize, formats

    counts: Counter[str] = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "c10d":
                counts["collectives"] += 1
            elif launches(func):
                counts[asked_by()] += 1
            return func(*args, **(kwargs or {}))

    class OneEach:
        """The wire formats' kernels, each function as one launch."""

        def __getattr__(self, name: str) -> Any:
            def run(*args: Any) -> None:
                counts["engine"] += 1
                with _disable_current_modes():
                    getattr(block_quantize, name)(*args)

            return run

    one_thread = torch.autograd.set_multithreading_enabled(False)  # or a backward has no stack
    counter = Count()  # type: ignore[no-untyped-call]
    with patch.object(formats, "_path", lambda tensor: OneEach()), counter, one_thread:
        yield counts


def launches(func: Any) -> bool:
    """Whether an operator computes or copies something, and does not only make a view or memory."""
    name = func._schema.name.partition("::")[2]
    if func.namespace == "profiler" or name.startswith(NO_LAUNCH):
        return False
    aliases = [argument.alias_info for argument in func._schema.arguments if argument.alias_info is not None]
    return not aliases or any(alias.is_write for alias in aliases)


def asked_by() -> str:
    """The part that asks for the launch, from the stack."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        for part in ("optimizer", "engine", "model"):
            if any(place in path for place in ASKED_BY[part]):
                return part
        if path.endswith("_tensor.py") or "autograd/__init__" in path:
            return "model"  # a backward without a Python frame of its own
        frame = frame.f_back
    return "rest"


if __name__ == "__main__":
    main()
