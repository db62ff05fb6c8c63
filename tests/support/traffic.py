"""What a rank sends in a step, for tests."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism.planner.traffic import Units
from frontrunner.parallelism.rendezvous import Rendezvous
from frontrunner.parallelism.runtime.experts.router import Router, Routing
from support.training import Patterns, make_trainer


def sent_with_even_routers(rendezvous: Rendezvous, spec: RunSpec) -> dict[str, int]:
    """Bytes of a whole step by level, where every choice of experts is as likely as any other."""

    def forward(router: Router, x: torch.Tensor) -> Routing:
        scores = torch.rand(len(x) * x.shape[1], router.spec.num_experts, device=x.device)
        weights, chosen = scores.topk(router.spec.experts_per_token)
        return Routing(chosen, weights + 0 * router.weight.sum())

    Router.forward = forward  # type: ignore[method-assign,assignment]
    torch.manual_seed(rendezvous.rank)
    trainer = make_trainer(rendezvous, spec)
    trainer.step(0, Patterns(spec))
    trainer.settle()
    trainer.transport.take()
    trainer.step(1, Patterns(spec))
    sent = trainer.sent
    trainer.settle()
    rest, _ = trainer.transport.take()
    dist.destroy_process_group()
    return {level: sent[level] + rest[level] for level in sent}


def sent_by_phase(rendezvous: Rendezvous, spec: RunSpec) -> dict[str, Any]:
    """Bytes by level up to the optimizer and after it, in a step that starts with everything at rest."""
    trainer = make_trainer(rendezvous, spec)
    units = trainer.engine.units
    trainer.step(0, Patterns(spec))
    trainer.settle()
    trainer.transport.take()
    trainer.step(1, Patterns(spec))
    sent = trainer.sent
    trainer.settle()
    rest, _ = trainer.transport.take()
    trainer.engine.gather_updated()
    trainer.settle()
    update, _ = trainer.transport.take()
    dist.destroy_process_group()
    return {
        "before": {level: sent[level] + rest[level] - update[level] for level in sent},
        "update": update,
        "units": Units(
            layers=sum(unit.numel for unit in units[1:]),
            first_layer=units[1].numel,
            embedding=units[0].numel,
            output=units[0].numel,
            tied=True,
        ),
    }
