"""The router's choices, weights and losses, against megatron-core's functions and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from megatron.core.transformer.moe.moe_utils import switch_load_balancing_loss_func, z_loss_func

from frontrunner.configs.experts import ExpertsSpec
from frontrunner.parallelism.runtime.experts.load import Load
from frontrunner.parallelism.runtime.experts.router import Router

HIDDEN, EXPERTS, PER_TOKEN = 16, 8, 3


def made(**keys: Any) -> tuple[Router, Load]:
    experts = ExpertsSpec(num_experts=EXPERTS, experts_per_token=PER_TOKEN, ffn_hidden_size=4, **keys)
    load = Load(1, EXPERTS, torch.device("cpu"))
    router = Router(HIDDEN, experts, 0, load)
    torch.nn.init.normal_(router.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return router, load


def tokens() -> torch.Tensor:
    return torch.randn(12, 2, HIDDEN, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalize", [False, True])
def test_choices_and_weights(kind: Any, normalize: bool) -> None:
    router, _ = made(router=kind, normalize=normalize)
    x = tokens()
    experts, weights = router(x)
    logits = x.flatten(0, 1) @ router.weight.t()
    scores = torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    if kind == "sigmoid":
        scores = 1 / (1 + torch.exp(-logits))
    for token, (chosen, given) in enumerate(zip(experts, weights, strict=True)):
        order = sorted(range(EXPERTS), key=lambda e: -float(scores[token, e]))[:PER_TOKEN]
        assert chosen.tolist() == order
        wanted = scores[token, order]
        torch.testing.assert_close(given, wanted / wanted.sum() if normalize else wanted)


def test_losses_and_their_gradients_are_those_of_megatron_core() -> None:
    """Its loss of each sequence, averaged; ours reaches the router through the weights' backward."""
    aux, z = 0.3, 0.2
    router, load = made(aux_loss=aux, z_loss=z)
    load.loss_factor = lambda: 0.5
    x = tokens()
    experts, weights = router(x)
    (weights.sum() * 0).backward()
    found, router.weight.grad = router.weight.grad, None
    logits = x @ router.weight.t()
    total = torch.zeros(())
    for sequence in range(2):
        scores = logits[:, sequence].softmax(-1)
        mine = experts.view(12, 2, PER_TOKEN)[:, sequence].flatten()
        counts = torch.bincount(mine, minlength=EXPERTS)
        total = total + switch_load_balancing_loss_func(scores, counts, 12, PER_TOKEN, EXPERTS, aux) / 2
    total = total + z_loss_func(logits.flatten(0, 1), z)
    (0.5 * total).backward()
    assert found is not None and router.weight.grad is not None
    torch.testing.assert_close(found, router.weight.grad)
    balance = load.take(lambda sums: None)
    assert aux * balance.aux_loss + z * balance.z_loss == pytest.approx(float(total.detach()), rel=1e-5)


def test_the_load_of_experts_is_recorded() -> None:
    router, load = made()
    with torch.no_grad():
        router.weight.zero_()
        router.weight[:PER_TOKEN, 0] = 100.0  # tokens with a positive first element choose these
    x = tokens().abs()
    router(x)
    balance = load.take(lambda sums: None)
    assert balance.expert_load == pytest.approx(EXPERTS / PER_TOKEN)
    assert balance.idle_experts == pytest.approx(1 - PER_TOKEN / EXPERTS)


def test_an_even_load_costs_one() -> None:
    router, load = made()
    torch.nn.init.zeros_(router.weight)
    router(tokens())
    assert load.take(lambda sums: None).aux_loss == pytest.approx(1.0)


def test_nothing_is_recorded_in_a_validation() -> None:
    router, load = made()
    router.eval()
    router(tokens())
    router.train()
    router(tokens())
    assert load._sums[0, -1] == 1
