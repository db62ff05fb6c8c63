"""DeepSpeed's ZeRO-1, 2, 3 and hpZ."""

from __future__ import annotations

import importlib
import math
import os
from types import ModuleType
from typing import Any

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.baselines.baseline import Baseline
from frontrunner.parallelism.runtime.baselines.deepspeed_config import deepspeed_config
from frontrunner.parallelism.runtime.baselines.reduce_scatter import exchange_and_sum
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.rank_trainer import StepResult
from frontrunner.parallelism.runtime.sharding.parameters import initial_values


class DeepSpeed(Baseline):
    """A DeepSpeed engine around the model, with torch's AdamW."""

    def __init__(self, spec: RunSpec, groups: ProcessGroups, device: torch.device) -> None:
        deepspeed = import_deepspeed(device, groups)
        super().__init__(spec, groups, device)
        self.model.to_empty(device=device)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                described = self.described[name]
                parameter.copy_(initial_values(described, spec.training.seed))
                # This mark tells DeepSpeed to count a parameter in the norm once, or once per tensor rank.
                parameter.tensor_model_parallel = described.split_dim is not None
        layer_numel = max(sum(p.numel() for p in layer.parameters()) for layer in self.layers)
        deepspeed.init_distributed(dist_init_required=False)
        if device.type == "cpu":
            deepspeed.comm.comm.cdb.reduce_scatter_function = exchange_and_sum
        self.engine, *_ = deepspeed.initialize(
            model=self.model,
            optimizer=self.make_optimizer(),
            config=deepspeed_config(spec, groups.layout, layer_numel),
            mpu=_TensorParallelUnit(groups) if groups.layout.tensor > 1 else None,
            dist_init_required=False,
        )

    def run(self, batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        self.engine.train(not forward_only)
        total = torch.zeros((), device=self.device)
        for number, tokens in enumerate(batches):
            loss = self.loss(self.engine, tokens)
            total += loss.detach()
            if not forward_only:
                self.engine.backward(loss)
                if number < len(batches) - 1:
                    self.engine.step()  # counts the micro-batch
        return total

    def update(self, number: int, loss: torch.Tensor) -> StepResult:
        self.set_learning_rate(self.engine.optimizer, number)
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm())
        return StepResult(norm, skipped=not math.isfinite(norm))


class _TensorParallelUnit:
    """Our groups, under the names that DeepSpeed expects of its "mpu"."""

    def __init__(self, groups: ProcessGroups) -> None:
        self.groups = groups

    def get_model_parallel_rank(self) -> int:
        return self.groups.coordinates.tensor

    def get_model_parallel_world_size(self) -> int:
        return self.groups.layout.tensor

    def get_model_parallel_group(self) -> Any:
        return self.groups.tensor

    def get_data_parallel_rank(self) -> int:
        return self.groups.coordinates.data

    def get_data_parallel_world_size(self) -> int:
        return self.groups.layout.data

    def get_data_parallel_group(self) -> Any:
        return self.groups.data


def import_deepspeed(device: torch.device, groups: ProcessGroups) -> ModuleType:
    """Import the package, after setting the environment variables that it reads."""
    size = groups.layout.devices_per_node
    os.environ.setdefault("LOCAL_RANK", str(groups.rank % size))
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("LOCAL_SIZE", str(size))  # or it runs numactl, which may be missing
        # Its operator for ranks on one host would need compiling, and bypasses the network. The attribute
        # of the package with this name is PyTorch itself.
        communication: Any = importlib.import_module("deepspeed.comm.torch")
        communication.build_shm_op = lambda: None
    return importlib.import_module("deepspeed")
