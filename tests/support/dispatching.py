"""One exchange of random tokens with the experts of other ranks, as a rank sees it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.device import select_device
from frontrunner.parallelism.runtime.experts.build import SparseLayers
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.process_groups import initialize
from frontrunner.parallelism.runtime.transport import Transport


class Sent(NamedTuple):
    """What a rank's tokens became, their gradient and their weights', and bytes by level and direction.

    Expert e multiplies by e + 1 + the element's number.
    """

    chosen: list[list[int]]
    weights: list[list[float]]
    tokens: list[list[float]]
    output: list[list[float]]
    gradient: list[list[float]]
    gradient_of_weights: list[list[float]]
    forward: dict[str, int]
    backward: dict[str, int]


def factor(expert: int, hidden: int) -> torch.Tensor:
    return expert + 1 + torch.arange(hidden, dtype=torch.float32)


def dispatched(rendezvous: Rendezvous, spec: RunSpec, tokens: int) -> Sent:
    device = select_device("cpu", rendezvous.local_rank)
    groups = initialize(Layout.from_spec(spec), rendezvous, device)
    transport = Transport(groups.layout, rendezvous.rank)
    layers = SparseLayers(spec, groups, transformer_config(spec), transport, device)
    experts, hidden = spec.model.experts, spec.model.hidden_size
    assert experts is not None
    generator = torch.Generator().manual_seed(rendezvous.rank)
    x = torch.randn(tokens, hidden, generator=generator).requires_grad_()
    scores = torch.rand(tokens, experts.num_experts, generator=generator)
    chosen = scores.topk(experts.experts_per_token).indices
    weights = torch.rand(tokens, experts.experts_per_token, generator=generator).requires_grad_()
    held = experts.num_experts // groups.layout.expert
    first = groups.coordinates.data % groups.layout.expert * held

    def compute(rows: torch.Tensor, wanted: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        assert ((wanted == -1) | ((wanted >= first) & (wanted < first + held))).all()
        total = rows * 0
        for expert in range(first, first + held):
            share = (factors * (wanted == expert)).sum(1, keepdim=True)
            total = total + rows * factor(expert, hidden) * share
        return total

    output = layers.dispatcher.run(x, chosen, weights, compute)
    forward = transport.take()[0]
    output.square().sum().backward()
    assert x.grad is not None and weights.grad is not None
    lists: list[list[list[Any]]] = [
        value.tolist() for value in (chosen, weights, x, output, x.grad, weights.grad)
    ]
    backward = transport.take()[0]
    dist.barrier()
    dist.destroy_process_group()
    return Sent._make([*lists, forward, backward])
