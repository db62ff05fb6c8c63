"""Runs one batch through the model: megatron-core's schedules with our groups and counted messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.pipeline_parallel import schedules
from megatron.core.transformer.transformer_config import TransformerConfig

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime import ranges
from frontrunner.parallelism.runtime.gpt.build import LanguageModel
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.streams import Streams
from frontrunner.parallelism.runtime.transport import CountedP2P, Transport
from frontrunner.parallelism.trace_events import FORWARD


class Schedule:
    """Runs the micro-batches of a batch forward, and backward unless ``forward_only``."""

    def __init__(
        self,
        spec: RunSpec,
        chunks: list[LanguageModel],
        groups: ProcessGroups,
        config: TransformerConfig,
        transport: Transport,
        streams: Streams,
    ) -> None:
        self.spec = spec
        self.chunks = chunks
        if groups.layout.pipeline == 1:
            function: Callable[..., Any] = schedules.forward_backward_no_pipelining
        elif groups.layout.virtual_stages == 1:
            function = schedules.forward_backward_pipelining_without_interleaving
        else:
            function = schedules.forward_backward_pipelining_with_interleaving
        self.run_batch = partial(
            function,
            pg_collection=groups.for_megatron(),
            p2p_communicator=CountedP2P(groups.pipeline, config, transport),
        )
        # Copied once: a copy in each forward would make the host wait for the device.
        self.positions = streams.to_device(torch.arange(spec.training.seq_len, device=torch.device("cpu")))

    def run(self, micro_batches: list[torch.Tensor], forward_only: bool = False) -> torch.Tensor:
        """The sum of the micro-batches' mean losses (nats per token) on the last stage, zero on others.

        ``micro_batches`` are [micro_batch_size, seq_len + 1] token tensors on the device.
        """
        iterators = [iter(micro_batches) for _ in self.chunks]
        losses = self.run_batch(
            forward_step_func=self._forward,
            data_iterator=iterators if len(self.chunks) > 1 else iterators[0],
            model=self.chunks,
            num_microbatches=len(micro_batches),
            seq_length=self.spec.training.seq_len,
            micro_batch_size=self.spec.layout.micro_batch_size,
            forward_only=forward_only,
        )
        if not losses:
            return torch.zeros((), device=micro_batches[0].device)
        return torch.stack(losses).sum()

    def _forward(self, batches: Iterator[torch.Tensor], chunk: LanguageModel) -> tuple[torch.Tensor, Any]:
        tokens = next(batches)
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        positions = self.positions.expand_as(inputs)
        with ranges.part(FORWARD):
            output = chunk(inputs, positions, None, labels=labels if chunk.post_process else None)
        return output, _mean_loss


def _mean_loss(per_token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    loss = per_token.float().mean()
    # A copy, because the schedule divides the original in place by the number of micro-batches.
    return loss, loss.detach().clone()
