"""One training step on one rank, with any engine."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import LEVELS
from frontrunner.parallelism.runtime.batches import micro_batches
from frontrunner.parallelism.runtime.experts.load import Balance
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.random_state import seed_rank
from frontrunner.parallelism.runtime.streams import Streams, streams_of
from frontrunner.parallelism.runtime.transport import Transport


class StepResult(NamedTuple):
    """``gradient_norm`` is the norm of the mean gradient before clipping; not finite if skipped."""

    gradient_norm: float
    skipped: bool


class Timing(NamedTuple):
    """Seconds of a step and its parts on this rank; ``communication`` is None if unknown."""

    step: float
    forward_backward: float
    communication: float | None
    optimizer: float


class RankTrainer(ABC):
    """A rank's model and optimizer, and one step of them.

    ``counted`` says whether all messages of the engine go through ``transport``. If not, bytes and waiting
    times are unknown. ``streams`` orders the device's work, by default as torch does.
    """

    counted = True

    def __init__(
        self, spec: RunSpec, groups: ProcessGroups, device: torch.device, streams: Streams | None = None
    ) -> None:
        self.spec = spec
        self.groups = groups
        self.device = device
        self.streams = streams_of(device) if streams is None else streams
        self.transport = Transport(groups.layout, groups.rank)
        self.sent: dict[str, int] = dict.fromkeys(LEVELS, 0)
        seed_rank(spec.training.seed, groups.coordinates, device)

    @property
    @abstractmethod
    def loss_scale(self) -> float:
        """The factor applied to losses before the backward (float16)."""

    @abstractmethod
    def run(self, batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        """Sum of the micro-batches' mean losses on the last stage, zero on others; their gradients too."""

    @abstractmethod
    def update(self, number: int, loss: torch.Tensor) -> StepResult:
        """Clip, then run the optimizer for step ``number`` (from 0); :meth:`run` returned the summed loss."""

    def balance(self) -> Balance | None:
        """The load of experts in the last step, and its losses; None for a dense model. Collective."""
        return None

    def settle(self) -> None:  # noqa: B027 - most engines leave nothing on its way
        """Wait for what the last step left in flight."""

    def step(
        self, number: int, dataset: Any, first_sample: int | None = None
    ) -> tuple[float, StepResult, Timing]:
        """Train on step ``number`` (from 0); return the mean loss, what the optimizer did, and the times.

        ``first_sample`` defaults to ``number`` whole batches; it differs if the batch size has changed.
        """
        size = self.spec.training.global_batch_size
        batches = self._batches(dataset, number * size if first_sample is None else first_sample, size)
        self.transport.take()
        start = self._now()
        loss = self.run(batches)
        middle = self._now()
        result = self.update(number, loss)
        end = self._now()
        self.sent, waited = self.transport.take()
        timing = Timing(end - start, middle - start, waited if self.counted else None, end - middle)
        return self._mean(loss, len(batches)), result, timing

    def validate(self, dataset: Any, samples: int) -> float:
        """Mean loss over the first ``samples`` samples, in nats per token."""
        batches = self._batches(dataset, 0, samples)
        with torch.no_grad():
            loss = self.run(batches, forward_only=True)
        return self._mean(loss, len(batches))

    def averages(self, busy_s: float) -> tuple[dict[str, float], float] | None:
        """Bytes that a rank sent in the last step, by level, and ``busy_s``, over all ranks; None if not
        counted."""
        if not self.counted:
            return None
        values = [*(self.sent[level] for level in LEVELS), busy_s]
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.transport.all_reduce(total, self.groups.world)
        *sent, busy = (total / self.groups.layout.world_size).tolist()
        return dict(zip(LEVELS, sent, strict=True)), busy

    def largest(self, *values: float) -> list[float]:
        """The maximum of each value over all ranks. Ranks use it to share what only some of them know."""
        largest = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.transport.all_reduce(largest, self.groups.world, op=dist.ReduceOp.MAX)
        return largest.tolist()

    def _batches(self, dataset: Any, first: int, count: int) -> list[torch.Tensor]:
        return micro_batches(dataset, self.spec, first, count, self.groups.coordinates.data, self.streams)

    def _mean(self, loss: torch.Tensor, batches: int) -> float:
        """Mean over micro-batches and data-parallel ranks; each tensor rank of the last stage has the sum."""
        total = loss.double() / (batches * self.groups.layout.data * self.groups.layout.tensor)
        self.transport.all_reduce(total, self.groups.world)
        return total.item()

    def _now(self) -> float:
        self.transport.waiting_for = "what the device has queued"
        self.streams.synchronize()
        self.transport.waiting_for = None
        return time.perf_counter()
