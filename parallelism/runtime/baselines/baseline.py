"""What the engines for comparison share: the model, its initial values, and AdamW's groups."""

from __future__ import annotations

from typing import Any

import torch

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.learning_rate import learning_rate
from frontrunner.parallelism.runtime.gpt.build import build_chunks
from frontrunner.parallelism.runtime.gpt.config import transformer_config
from frontrunner.parallelism.runtime.process_groups import ProcessGroups
from frontrunner.parallelism.runtime.rank_trainer import RankTrainer
from frontrunner.parallelism.runtime.sharding.parameters import describe


class Baseline(RankTrainer):
    """A whole model (one pipeline stage), built on ``meta``; an engine gives it storage.

    ``described`` maps the name of each parameter to what it is in the whole model.
    """

    counted = False

    def __init__(self, spec: RunSpec, groups: ProcessGroups, device: torch.device) -> None:
        super().__init__(spec, groups, device)
        assert groups.data.size() == groups.layout.data, "made without data=True"
        (self.model,) = build_chunks(spec, groups, transformer_config(spec))
        self.described = describe(self.model, spec.model, groups, spec.layout.sequence_parallel)
        self.layers = list(self.model.decoder.layers)
        self.positions = torch.arange(spec.training.seq_len, device=device)

    @property
    def loss_scale(self) -> float:
        return 1.0

    def loss(self, model: Any, tokens: torch.Tensor) -> torch.Tensor:
        """Mean loss of a micro-batch [micro_batch_size, seq_len + 1] through ``model``."""
        inputs, labels = tokens[:, :-1], tokens[:, 1:]
        per_token: torch.Tensor = model(inputs, self.positions.expand_as(inputs), None, labels=labels)
        return per_token.float().mean()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weight decay applies to matrices, not to vectors (norms and biases), as in our own engine."""
        groups = []
        for decay in (True, False):
            members = [p for name, p in self.model.named_parameters() if self.described[name].decay == decay]
            groups.append(
                {"params": members, "weight_decay": self.spec.optimizer.weight_decay if decay else 0.0}
            )
        return groups

    def make_optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.spec.optimizer
        return torch.optim.AdamW(
            self.parameter_groups(), lr=0.0, betas=optimizer.betas, eps=optimizer.epsilon, fused=True
        )

    def set_learning_rate(self, optimizer: Any, number: int) -> None:
        """The learning rate of step ``number`` (from 0)."""
        rate = learning_rate(self.spec.optimizer, number, self.spec.training.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
