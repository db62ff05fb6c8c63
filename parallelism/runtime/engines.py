"""The trainer of the engine that a run asks for."""

from __future__ import annotations

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.engines import check_engine
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.trainer import Trainer


def make_trainer(spec: RunSpec, groups: ProcessGroups, device: torch.device) -> RankTrainer:
    """The trainer of ``spec.engine``; collective over all ranks. DeepSpeed takes seconds to import.

    Raises SpecError if the engine cannot do what the run asks on this device.
    """
    check_engine(spec, groups.layout, device.type)
    if spec.engine == "deepspeed":
        from frontrunner.parallelism.runtime.baselines.deepspeed import DeepSpeed

        return DeepSpeed(spec, groups, device)
    if spec.engine == "fsdp":
        from frontrunner.parallelism.runtime.baselines.fsdp import FullyShardedDataParallel

        return FullyShardedDataParallel(spec, groups, device)
    return Trainer(spec, groups, device)
