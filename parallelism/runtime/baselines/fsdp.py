"""PyTorch's FSDP2 and HSDP (``fully_shard``), with their best settings for each layout.

Each layer is one FSDP unit; the next one is gathered while one computes. Gradients are reduce-scattered in
every micro-batch, since each rank would hold them whole otherwise. Replicas (HSDP) are only summed in the
last micro-batch.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.baselines.baseline import Baseline
from frontrunner.parallelism.runtime.baselines.reduce_scatter import ExchangeAndSum
from frontrunner.parallelism.runtime.device import DTYPES
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.rank_trainer import StepResult
from frontrunner.parallelism.runtime.sharding.parameters import initial_values


class FullyShardedDataParallel(Baseline):
    """Sharded float32 parameters, used in the run's precision.

    ``preset: zero2`` keeps the weights gathered from a step's first use to its last (FSDP's
    ``reshard_after_forward=False``); any other layout frees them after each use.
    """

    def __init__(self, spec: RunSpec, groups: ProcessGroups, device: torch.device) -> None:
        super().__init__(spec, groups, device)
        self.keeps_weights = groups.layout.weights == 1
        self.replicated = groups.layout.optimizer < groups.layout.data
        self._shard()
        self.optimizer = self.make_optimizer()

    def run(self, batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        total = torch.zeros((), device=self.device)
        root = cast(FSDPModule, self.model)
        for number, tokens in enumerate(batches):
            loss = self.loss(self.model, tokens)
            total += loss.detach()
            if forward_only:
                continue
            last = number == len(batches) - 1
            root.set_is_last_backward(last)
            if self.replicated:
                root.set_requires_all_reduce(last)
            if self.keeps_weights:
                root.set_reshard_after_backward(last)
            (loss / len(batches)).backward()
        if forward_only and self.keeps_weights:
            root.reshard()
        return total

    @torch.no_grad()
    def update(self, number: int, loss: torch.Tensor) -> StepResult:
        gradients = [
            (self.described[name], cast(DTensor, parameter.grad).to_local())
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        ]
        if self.groups.tensor.size() > 1:
            for described, gradient in gradients:
                if described.partial_gradient:
                    self.transport.all_reduce(gradient, self.groups.tensor)
        squares = torch.zeros(1, dtype=torch.float64, device=self.device)
        if self.groups.position.replica == 0:
            for described, gradient in gradients:
                if described.counted:
                    squares += torch.linalg.vector_norm(gradient).double() ** 2
        self.transport.all_reduce(squares, self.groups.world)
        norm = squares.sqrt().item()
        skipped = not math.isfinite(norm)
        if not skipped:
            clip = self.spec.optimizer.clip
            if 0 < clip < norm:
                torch._foreach_mul_([gradient for _, gradient in gradients], clip / norm)
            self.set_learning_rate(self.optimizer, number)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepResult(norm, skipped)

    def _shard(self) -> None:
        """Apply ``fully_shard`` to each layer and the rest, and fill in this rank's values."""
        training = self.spec.training
        self.model.float()
        settings: dict[str, Any] = {"mesh": self._mesh(), "reshard_after_forward": not self.keeps_weights}
        if training.precision != "float32":
            settings["mp_policy"] = MixedPrecisionPolicy(
                param_dtype=DTYPES[training.precision], reduce_dtype=DTYPES[training.gradient_dtype]
            )
        for layer in self.layers:
            fully_shard(layer, **settings)
        fully_shard(self.model, **settings)
        if self.device.type == "cpu":
            for unit in (*self.layers, self.model):
                unit.set_custom_reduce_scatter(ExchangeAndSum())
        for layer, following in zip(self.layers, self.layers[1:], strict=False):
            layer.set_modules_to_forward_prefetch([following])
            following.set_modules_to_backward_prefetch([layer])
        self.model.to_empty(device=self.device)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                values = initial_values(self.described[name], training.seed).to(self.device)
                mesh, placements = parameter.device_mesh, parameter.placements
                mine = distribute_tensor(values, mesh, placements, src_data_rank=None)
                parameter.to_local().copy_(mine.to_local())

    def _mesh(self) -> DeviceMesh:
        """A mesh with all data-parallel ranks on one axis, or replicas x shards."""
        layout, rank, kind = self.groups.layout, self.groups.rank, self.device.type
        groups = layout.groups(rank)
        if not self.replicated:
            return DeviceMesh.from_group(
                self.groups.data, kind, list(groups.data), mesh_dim_names=("shards",)
            )
        shards = layout.optimizer
        mesh = [list(groups.data[start : start + shards]) for start in range(0, layout.data, shards)]
        return DeviceMesh.from_group(
            [self.groups.replicas, self.groups.weights], kind, mesh, mesh_dim_names=("replicas", "shards")
        )
