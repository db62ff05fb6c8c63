"""Parameters of real models, for tests."""

from __future__ import annotations

import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.gpt.build import build_chunks, plan_units
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.process_groups import initialize


def unit_sizes(rendezvous: Rendezvous, specs: list[RunSpec]) -> list[tuple[int, dict[str, int]]]:
    """Of each run the pipeline stage of this rank and its units' numbers of parameters, without padding."""
    groups = initialize(Layout.from_spec(specs[0]), rendezvous, select_device("cpu", rendezvous.local_rank))
    found = []
    for spec in specs:
        sizes: dict[str, int] = {}
        for chunk in build_chunks(spec, groups, transformer_config(spec)):
            parameters = dict(chunk.named_parameters())
            for plan in plan_units(chunk):
                sizes[plan.name] = sum(parameters[name].numel() for name in plan.parameters)
        found.append((groups.coordinates.pipeline, sizes))
    dist.destroy_process_group()
    return found
