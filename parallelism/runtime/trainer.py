"""One rank's model, engine and optimizer, and one step of them."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS
from frontrunner.parallelism.runtime.batches import micro_batches
from frontrunner.parallelism.runtime.device import peak_memory_bytes, synchronize
from frontrunner.parallelism.runtime.gpt.build import build_chunks
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.random_state import seed_rank
from frontrunner.parallelism.runtime.schedule import Schedule
from frontrunner.parallelism.runtime.sharding.engine import ShardingEngine
from frontrunner.parallelism.runtime.sharding.optimizer import ShardedAdamW, StepResult
from frontrunner.parallelism.runtime.transport import Transport


class Timing(NamedTuple):
    """Seconds of a step and of its parts on this rank."""

    step: float
    forward_backward: float
    communication: float
    optimizer: float


class Trainer:
    """A rank's model, engine and optimizer, and one step of them."""

    def __init__(self, spec: RunSpec, groups: ProcessGroups, device: torch.device) -> None:
        self.spec = spec
        self.groups = groups
        self.device = device
        self.transport = Transport(groups.layout, groups.rank)
        config = transformer_config(spec)
        seed_rank(spec.training.seed, groups.coordinates, device)
        chunks = build_chunks(spec, groups, config)
        self.engine = ShardingEngine(spec, chunks, groups, self.transport, device)
        self.optimizer = ShardedAdamW(spec, self.engine)
        config.grad_scale_func = lambda loss: loss * self.optimizer.loss_scale.value
        self.schedule = Schedule(spec, chunks, groups, config, self.transport)

    def step(self, number: int, dataset: Any) -> tuple[float, StepResult, Timing]:
        """Train on batch ``number`` (from 0): the mean loss, what the optimizer did, and the times."""
        size = self.spec.training.global_batch_size
        batches = micro_batches(
            dataset, self.spec, number * size, size, self.groups.coordinates.data, self.device
        )
        self.transport.take()
        start = self._now()
        self.engine.begin_step()
        with self.transport.counting_tensor_parallel():
            loss = self.schedule.run(batches)
        middle = self._now()
        self.engine.finish_gradients()
        result = self.optimizer.step(number)
        end = self._now()
        self.sent, waited = self.transport.take()
        timing = Timing(end - start, middle - start, waited, end - middle)
        return self._mean(loss, len(batches)), result, timing

    def validate(self, dataset: Any, samples: int) -> float:
        """Mean loss over the first ``samples`` samples, in nats a token."""
        batches = micro_batches(dataset, self.spec, 0, samples, self.groups.coordinates.data, self.device)
        with torch.no_grad():
            loss = self.schedule.run(batches, forward_only=True)
        self.engine.release()
        return self._mean(loss, len(batches))

    def settle(self) -> None:
        """Wait for what the last step left on its way."""
        self.engine.gatherer.join()

    def average_sent(self) -> dict[str, float]:
        """Bytes that a rank sent in the last step by level, averaged over the world."""
        total = torch.tensor([self.sent[level] for level in LEVELS], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        mean = total / self.groups.layout.world_size
        return dict(zip(LEVELS, mean.tolist(), strict=True))

    def largest_memory(self) -> int:
        """Peak memory of the rank that needs most."""
        peak = torch.tensor(float(peak_memory_bytes(self.device)), dtype=torch.float64, device=self.device)
        dist.all_reduce(peak, op=dist.ReduceOp.MAX)
        return int(peak.item())

    def _mean(self, loss: torch.Tensor, batches: int) -> float:
        """Mean over micro-batches and data-parallel ranks; each tensor rank of the last stage has the sum."""
        total = loss.double() / (batches * self.groups.layout.data * self.groups.layout.tensor)
        dist.all_reduce(total)
        return total.item()

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()
