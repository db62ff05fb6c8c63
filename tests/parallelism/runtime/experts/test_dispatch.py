"""Tokens reach their experts and come back: values, gradients, and how often each crosses which level."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.dispatching import Sent, dispatched, factor
from support.ranks import run_ranks
from support.specs import SPARSE, run_spec

HIDDEN, TOKENS, PER_TOKEN = 64, 24, 4
MODEL = SPARSE | {
    "hidden_size": HIDDEN,
    "experts": {"num_experts": 16, "experts_per_token": PER_TOKEN, "ffn_hidden_size": 48},
}
TWO_NODES: dict[str, Any] = {"nodes": 2, "packages": 2, "devices": 2}
ROW = 4 * HIDDEN
NUMBERS = (4 + 4) * PER_TOKEN  # an expert and its weight


def sent(**layout: Any) -> list[Sent]:
    spec = run_spec(model=MODEL, layout=layout, **TWO_NODES)
    return run_ranks(8, dispatched, spec, TOKENS)


def expected(rank: Sent) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Outputs and gradients, computed where the tokens are."""
    x = torch.tensor(rank.tokens).requires_grad_()
    weights = torch.tensor(rank.weights).requires_grad_()
    factors = torch.stack([factor(e, HIDDEN) for e in range(16)])[torch.tensor(rank.chosen)]
    output = (x[:, None] * factors * weights[..., None]).sum(1)
    output.square().sum().backward()
    assert x.grad is not None and weights.grad is not None
    return output.detach(), x.grad, weights.grad


def counted(ranks: list[Sent], hops: list[int], expert: int) -> dict[str, int]:
    """Rows that all ranks send, by level: in each hop a row goes once to each block of its experts.

    ``hops`` are the sizes of the blocks: 4 ranks are a node, 1 is a rank.
    """
    found = {"package": 0, "node": 0, "network": 0}
    per_rank = 16 // expert

    def level(a: int, b: int) -> str:
        return "package" if a // 2 == b // 2 else "node" if a // 4 == b // 4 else "network"

    for number, rank in enumerate(ranks):
        base = number - number % expert
        for experts in rank.chosen:
            owners = {base + e // per_rank for e in experts}
            here = {number: owners}
            for size in hops:
                there: dict[int, set[int]] = {}
                for at, wanted in here.items():
                    # The counterpart of ``at`` in each owner's block.
                    targets = {owner: owner - owner % size + at % size for owner in wanted}
                    for owner, target in targets.items():
                        there.setdefault(target, set()).add(owner)
                    for target in {*targets.values()} - {at}:
                        found[level(at, target)] += 1
                here = there
    return found


@pytest.mark.parametrize(
    ("layout", "hops"),
    [
        ({"expert": 8}, [4, 1]),
        ({"expert": 8, "dispatch": "flat"}, [1]),
        ({"expert": 4}, [1]),
        ({"expert": 2}, [1]),
    ],
    ids=["two nodes", "flat", "a node", "a package"],
)
def test_tokens_meet_their_experts(layout: dict[str, Any], hops: list[int]) -> None:
    ranks = sent(**layout)
    for rank in ranks:
        output, gradient, of_weights = expected(rank)
        torch.testing.assert_close(torch.tensor(rank.output), output)
        torch.testing.assert_close(torch.tensor(rank.gradient), gradient)
        torch.testing.assert_close(torch.tensor(rank.gradient_of_weights), of_weights)
    rows = counted(ranks, hops, layout["expert"])
    assert rows["package"] > 0
    assert (rows["network"] > 0) == (layout["expert"] == 8)
    # Both directions carry the values; experts and weights go out, the weights' gradients come back.
    for level, count in rows.items():
        counts = 8 if count else 0  # of rows to each other rank, in each hop
        forward = sum(rank.forward[level] for rank in ranks)
        assert count * (2 * ROW + NUMBERS) <= forward <= count * (2 * ROW + NUMBERS) + 8 * 7 * counts
        assert sum(rank.backward[level] for rank in ranks) == count * (2 * ROW + NUMBERS // 2)


def test_a_token_crosses_the_network_once_for_each_node() -> None:
    """With two nodes and four experts a token: at most one copy leaves, and flat more than two."""
    once, flat = (sent(expert=8, dispatch=dispatch) for dispatch in ("hierarchical", "flat"))
    rows = [
        sum(rank.backward["network"] for rank in ranks) / (2 * ROW + NUMBERS // 2) for ranks in (once, flat)
    ]
    tokens = 8 * TOKENS
    assert 0.8 * tokens < rows[0] <= tokens
    assert rows[1] > 1.5 * rows[0]


@pytest.mark.parametrize("dispatch", ["hierarchical", "flat"])
def test_int8_between_nodes_is_near_and_smaller(dispatch: str) -> None:
    """A scale for each token: values are within half a step, 1/254 of the token's largest."""
    layout = {"expert": 8, "dispatch": dispatch}
    exact, coded = (sent(**layout, dispatch_wire=wire) for wire in ("exact", "int8"))
    for one, other in zip(exact, coded, strict=True):
        found, wanted = torch.tensor(other.output), torch.tensor(one.output)
        assert not torch.equal(found, wanted)
        # Once on the way there, times the factors, and once on the way back.
        largest = torch.tensor(one.tokens).abs().amax(1, keepdim=True) * (16 + HIDDEN) * PER_TOKEN
        assert ((found - wanted).abs() <= (largest + wanted.abs().amax(1, keepdim=True)) / 254 * 2).all()
        assert (one.backward["node"] == other.backward["node"]) == (dispatch == "hierarchical")
    network = [sum(rank.backward["network"] for rank in ranks) for ranks in (exact, coded)]
    assert network[1] < 0.4 * network[0]
