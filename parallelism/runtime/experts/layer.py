"""A sparse layer's part after attention: router, experts of this rank, shared experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core.tensor_parallel.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from torch import Tensor

from frontrunner.parallelism.runtime.experts.dispatch import Dispatcher, added, true_places
from frontrunner.parallelism.runtime.experts.grouped import grouped_linear
from frontrunner.parallelism.runtime.experts.router import Router
from frontrunner.parallelism.runtime.process_groups import Group

Activation = Callable[[Tensor], Tensor]


class ExpertLinear(torch.nn.Module):
    """One matrix of each expert that this rank holds, below one another in ``weight``.

    ``matrices`` are those of all experts, ``held`` this rank's. Tensor ranks cut each along ``split_dim``.
    """

    def __init__(self, rows: int, columns: int, split_dim: int, matrices: int, held: range) -> None:
        super().__init__()
        self.split_dim, self.matrices, self.held = split_dim, matrices, held
        self.weight = torch.nn.Parameter(torch.empty(len(held) * rows, columns))


class Experts(torch.nn.Module):
    """The MLPs of this rank's experts, each cut over tensor ranks like a dense one.

    ``held`` are their numbers; ``width`` is what this tensor rank has of ffn_hidden_size.
    """

    def __init__(
        self, hidden_size: int, width: int, num_experts: int, held: range, gated: bool, activation: Activation
    ) -> None:
        super().__init__()
        self.held, self.gated, self.activation = held, gated, activation
        parts = 2 if gated else 1
        matrices = range(parts * held.start, parts * held.stop)
        self.linear_fc1 = ExpertLinear(width, hidden_size, 0, parts * num_experts, matrices)
        self.linear_fc2 = ExpertLinear(hidden_size, width, 1, num_experts, held)

    def forward(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """[n, h] rows and their experts and weights [n, k] to the weighted sums over this rank's experts.

        Other experts' numbers, and -1, are passed over. The sums are partial over tensor ranks.
        """
        mine = torch.arange(self.held.start, self.held.stop, device=x.device)
        uses = experts[..., None] == mine  # [n, k, held]
        totals = uses.sum((0, 1))
        counts = totals.tolist()
        which, rows = true_places(uses.any(1).t(), sum(counts))
        factors = (weights[..., None] * uses).sum(1)[rows, which]
        made = self.products(x[rows], counts, F.pad(totals.cumsum(0), (1, 0)).to(torch.int32))
        return added(made.float() * factors[:, None], rows, len(x)).to(x.dtype)

    def products(self, x: Tensor, counts: list[int], starts: Tensor) -> Tensor:
        """The experts' MLPs of rows [n, h] in the order of experts, as :func:`grouped_linear` takes them."""
        first, second = (
            linear.weight.unflatten(0, (len(self.held), -1)) for linear in (self.linear_fc1, self.linear_fc2)
        )
        hidden = self._activated(grouped_linear(x, first, counts, starts))
        return grouped_linear(hidden, second, counts, starts)

    def _activated(self, x: Tensor) -> Tensor:
        if not self.gated:
            return self.activation(x)
        gate, up = x.chunk(2, dim=-1)
        return self.activation(gate) * up


class SparseMLP(torch.nn.Module):
    """Router and experts in place of a layer's MLP, with megatron-core's signature.

    ``shared`` is the MLP of the shared experts or None; ``shared_gate`` weighs it by a sigmoid of the token.
    """

    def __init__(
        self,
        router: Router,
        experts: Experts,
        dispatcher: Dispatcher,
        tensor: Group,
        sequence_parallel: bool,
        shared: torch.nn.Module | None,
        shared_gate: torch.nn.Module | None,
    ) -> None:
        super().__init__()
        self.router, self.experts, self.dispatcher = router, experts, dispatcher
        self.tensor, self.sequence_parallel = tensor, sequence_parallel
        if shared is not None:
            self.shared_experts = shared
        if shared_gate is not None:
            self.shared_gate = shared_gate

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        """[s, b, h] to ([s, b, h], None); s is cut over tensor ranks if the run is sequence parallel."""
        x = hidden_states
        if self.sequence_parallel:
            # Each rank has the whole gradient of what it routes; that of the experts is summed below.
            x = gather_from_sequence_parallel_region(x, tensor_parallel_output_grad=False, group=self.tensor)
        experts, weights = self.router(x)
        tokens = copy_to_tensor_model_parallel_region(x.flatten(0, 1), group=self.tensor)
        weights = copy_to_tensor_model_parallel_region(weights, group=self.tensor)
        output = self.dispatcher.run(tokens, experts, weights, self.experts).view_as(x)
        if self.sequence_parallel:
            output = reduce_scatter_to_sequence_parallel_region(output, group=self.tensor)
        else:
            output = reduce_from_tensor_model_parallel_region(output, group=self.tensor)
        return output + self._shared(hidden_states), None

    def _shared(self, x: Tensor) -> Tensor | float:
        if not hasattr(self, "shared_experts"):
            return 0.0
        output: Tensor
        output, _ = self.shared_experts(x)
        if hasattr(self, "shared_gate"):
            output = self.shared_gate(x).sigmoid() * output
        return output
