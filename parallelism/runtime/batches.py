"""Which samples a rank sees in a step: a function of the sample's number, not of the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.runtime.streams import Streams


def micro_batches(
    dataset: Any, spec: RunSpec, first_sample: int, count: int, data_rank: int, streams: Streams
) -> list[torch.Tensor]:
    """The rank's share of ``count`` samples from ``first_sample`` on: [micro_batch_size, seq_len + 1] each.

    ``dp * micro_batch_size`` consecutive samples are one micro-batch of all data-parallel ranks, in order.
    """
    size, data_parallel = spec.layout.micro_batch_size, spec.data_parallel
    batches = []
    for start in range(first_sample + data_rank * size, first_sample + count, data_parallel * size):
        samples = np.stack([dataset[number] for number in range(start, start + size)])
        batches.append(streams.to_device(torch.from_numpy(samples)))
    return batches
