"""frontrunner's own engine on one rank: model, sharding engine, optimizer and schedule."""

from __future__ import annotations

from contextlib import nullcontext

import torch

import frontrunner.parallelism.runtime.quick_import  # noqa: F401  (before megatron-core)
from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.runtime.experts.build import SparseLayers
from frontrunner.parallelism.runtime.experts.load import Balance
from frontrunner.parallelism.runtime.gpt.build import build_chunks
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.integrity.verifier import Verifier
from frontrunner.parallelism.runtime.megatron_inside import around_backward
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer, StepResult
from frontrunner.parallelism.runtime.schedule import Schedule
from frontrunner.parallelism.runtime.sharding.engine import ShardingEngine
from frontrunner.parallelism.runtime.sharding.optimizer import ShardedAdamW
from frontrunner.parallelism.runtime.streams import Streams
from frontrunner.parallelism.trace_events import BACKWARD


class Trainer(RankTrainer):
    """The model chunks of a rank in the sharding engine, trained by a megatron-core schedule."""

    def __init__(
        self, spec: RunSpec, groups: ProcessGroups, device: torch.device, streams: Streams | None = None
    ) -> None:
        super().__init__(spec, groups, device, streams)
        config = transformer_config(spec)
        self.sparse = (
            SparseLayers(spec, groups, config, self.transport, device) if spec.model.experts else None
        )
        chunks = build_chunks(spec, groups, config, self.sparse)
        self.engine = ShardingEngine(spec, chunks, groups, self.transport, device, self.streams)
        self.optimizer = ShardedAdamW(spec, self.engine)
        self.verifier = Verifier(spec, self.optimizer)
        config.grad_scale_func = lambda loss: loss * self.optimizer.loss_scale.value
        if self.sparse is not None:
            # The schedule divides losses by the number of micro-batches.
            self.sparse.load.loss_factor = lambda: self.optimizer.loss_scale.value / spec.grad_accum_steps
        self.schedule = Schedule(spec, chunks, groups, config, self.transport, self.streams)

    @property
    def loss_scale(self) -> float:
        return self.optimizer.loss_scale.value

    def run(self, batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        if forward_only:
            self._set_dropout(active=False)
            loss = self.schedule.run(batches, forward_only=True)
            self._set_dropout(active=True)
            self.engine.release()
            return loss
        self.engine.begin_step()
        self.verifier.begin_step()
        named = around_backward(lambda: ranges.part(BACKWARD)) if ranges.on() else nullcontext()
        with self.transport.counting_tensor_parallel(), named:
            return self.schedule.run(batches)

    def update(self, number: int, loss: torch.Tensor) -> StepResult:
        self.engine.finish_gradients()
        self.verifier.before_update(number)
        result = self.optimizer.step(number, loss, self.verifier.masters_updated)
        self.verifier.after_update(number)
        return result

    def balance(self) -> Balance | None:
        if self.sparse is None:
            return None
        return self.sparse.load.take(lambda sums: self.transport.all_reduce(sums, self.groups.world))

    def _set_dropout(self, active: bool) -> None:
        for chunk in self.schedule.chunks:
            chunk.train(active)

    def settle(self) -> None:
        self.engine.gatherer.join()
