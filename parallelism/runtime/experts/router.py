"""The router of a layer: which experts each token uses, their weights, and what keeps their load even."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from frontrunner.configs.experts import ExpertsSpec
from frontrunner.parallelism.runtime.experts.load import Load


class Routing(NamedTuple):
    """``experts`` are global numbers, int64 [tokens, k]; ``weights`` their factors, float32 [tokens, k]."""

    experts: Tensor
    weights: Tensor


class Router(torch.nn.Module):
    """Chooses each token's k experts by the scores of a linear layer, in float32 whatever the precision.

    The scores of a token are a softmax over all experts (Shazeer et al. 2017, arXiv 1701.06538) or sigmoids
    (DeepSeek-V3, arXiv 2412.19437, equation 15). Every tensor rank routes all tokens of a micro-batch.
    """

    def __init__(self, hidden_size: int, experts: ExpertsSpec, number: int, load: Load) -> None:
        super().__init__()
        self.spec = experts
        self.number = number  # among the sparse layers of the whole model
        self.load = load
        self.weight = torch.nn.Parameter(torch.empty(experts.num_experts, hidden_size))

    def forward(self, x: Tensor) -> Routing:
        """[s, b, h] to the routing of s x b tokens."""
        spec = self.spec
        logits = x.float() @ self.weight.float().t()
        scores = logits.softmax(-1) if spec.router == "softmax" else logits.sigmoid()
        weights, chosen = scores.topk(spec.experts_per_token, dim=-1)
        if spec.normalize:
            weights = weights / weights.sum(-1, keepdim=True)
        if self.training:
            weights = self._balanced(logits, scores, chosen, weights)
        return Routing(chosen.flatten(0, 1), weights.flatten(0, 1))

    def _balanced(self, logits: Tensor, scores: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """``weights``, whose backward adds the gradients of the auxiliary losses.

        The load-balancing loss is that of Switch Transformers (arXiv 2101.03961, equation 4), divided by k
        and taken over each sequence, so that it does not depend on the layout: num_experts * sum of f * p, 1
        if the load is even. The z-loss is that of ST-MoE (arXiv 2202.08906, equation 5).
        """
        spec = self.spec
        counts = torch.zeros_like(scores).scatter_(-1, chosen, 1.0).sum(0)  # [b, experts]
        shares = scores / scores.sum(-1, keepdim=True) if spec.router == "sigmoid" else scores
        f = counts / (len(scores) * spec.experts_per_token)
        balance = spec.num_experts * (f * shares.mean(0)).sum(-1).mean()
        size = logits.logsumexp(-1).square().mean()
        self.load.add(self.number, counts.sum(0), balance, size)
        return _WithLosses.apply(  # type: ignore[no-any-return,no-untyped-call]
            weights, spec.aux_loss * balance + spec.z_loss * size, self.load
        )


class _WithLosses(torch.autograd.Function):
    """The identity, whose backward starts that of a further loss, as if it were added to the model's."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, loss: Tensor, load: Load) -> Tensor:
        ctx.load, ctx.like = load, loss.detach()
        return weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        return gradients[0], torch.full_like(ctx.like, ctx.load.loss_factor()), None
