"""What the routers of a rank saw in a step: the load of each expert, and the auxiliary losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Balance(NamedTuple):
    """Of one step over all ranks and sparse layers.

    ``aux_loss`` is the mean load-balancing loss of a layer before its factor (1: even), ``z_loss`` the mean
    square of the logits' log-sum-exp, ``expert_load`` the most tokens of an expert divided by the mean of its
    layer, the largest of all layers; ``idle_experts`` the experts without a token, as a share.
    """

    aux_loss: float
    z_loss: float
    expert_load: float
    idle_experts: float


class Load:
    """Sums over the micro-batches of a step, for all sparse layers of the model.

    ``loss_factor`` is what the schedule multiplies losses by before the backward.
    """

    def __init__(self, layers: int, experts: int, device: torch.device) -> None:
        self.loss_factor: Callable[[], float] = lambda: 1.0
        self._layers, self._experts = layers, experts
        # By layer: each expert's tokens, the two losses, and the micro-batches that were added.
        self._sums = torch.zeros(layers, experts + 3, dtype=torch.float64, device=device)

    def add(self, layer: int, counts: Tensor, balance: Tensor, size: Tensor) -> None:
        """Add a micro-batch of a layer: tokens [experts], and the losses.

        A layer that is recomputed adds each twice, which changes none of the ratios.
        """
        losses = torch.stack([balance.detach(), size.detach(), torch.ones_like(size)])
        self._sums[layer] += torch.cat([counts.detach(), losses])

    def take(self, all_reduce: Callable[[Tensor], None]) -> Balance:
        """The sums since the last call over all ranks, and begin again. Collective."""
        sums = self._sums.clone()
        self._sums.zero_()
        all_reduce(sums)
        counts, micro_batches = sums[:, : self._experts], sums[:, -1]
        balance, size = ((sums[:, -3 + index] / micro_batches).mean() for index in range(2))
        load = (counts.amax(1) / counts.mean(1)).amax()
        return Balance(*torch.stack([balance, size, load, (counts == 0).double().mean()]).tolist())
