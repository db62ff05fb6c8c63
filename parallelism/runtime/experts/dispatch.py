"""How tokens get to the ranks that hold their experts, and how the experts' outputs get back.

Tokens take one hop after the other. In each, a rank sends every row (a token with its experts and their
weights) once to each member of the hop's group that leads to an expert of the row. If experts span nodes, the
first hop crosses the network between counterparts of the nodes, and the second copies rows inside the node.
So a token that goes to several experts of a node crosses the network once, and what these experts make of it
comes back as one sum (the redundancy bypass of X-MoE, arXiv 2508.13337, section 4.2). No token is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from frontrunner.parallelism.runtime.process_groups import Group
from frontrunner.parallelism.runtime.transport import Transport
from frontrunner.parallelism.runtime.wire.formats import WireFormat

#: Computes experts: rows [n, h], experts of each or -1 [n, k], weights [n, k] to the weighted sums [n, h].
Compute = Callable[[Tensor, Tensor, Tensor], Tensor]


class Hop(NamedTuple):
    """``member`` [num_experts + 1] is the group's rank that leads to each expert; its last entry is -1.

    ``wire`` is how hidden values travel; None: as they are.
    """

    group: Group
    member: Tensor
    wire: WireFormat | None


class Dispatcher:
    """Sends the tokens of one rank through ``hops``."""

    def __init__(self, hops: Sequence[Hop], transport: Transport) -> None:
        self.hops = [hop for hop in hops if hop.group.size() > 1]
        self.transport = transport

    def run(self, x: Tensor, experts: Tensor, weights: Tensor, compute: Compute) -> Tensor:
        """The weighted sum of each token's experts, [n, h] as ``x``; collective over all hops' ranks."""
        return self._from(0, x, experts, weights, compute)

    def _from(self, place: int, x: Tensor, experts: Tensor, weights: Tensor, compute: Compute) -> Tensor:
        if place == len(self.hops):
            return compute(x, experts, weights)
        hop = self.hops[place]
        leads = hop.member[experts][..., None] == torch.arange(hop.group.size(), device=experts.device)
        leads = leads.any(1).t()  # [members, n]
        went, came = self._counts(hop, leads.sum(1))
        members, rows = true_places(leads, sum(went))
        there = experts[rows].where(hop.member[experts[rows]] == members[:, None], -1)
        arrived: tuple[Tensor, Tensor, Tensor] = _Send.apply(  # type: ignore[no-untyped-call]
            x[rows], weights[rows], there, _Route(self.transport, hop, went, came)
        )
        values, factors, theirs = arrived
        made = self._from(place + 1, values, theirs, factors, compute)
        back: Tensor = _Return.apply(  # type: ignore[no-untyped-call]
            made, _Route(self.transport, hop, came, went)
        )
        return added(back, rows, len(x))

    def _counts(self, hop: Hop, went: Tensor) -> tuple[list[int], list[int]]:
        """How many rows go to each member, and how many come; the only time that the host waits."""
        came = torch.empty_like(went)
        ones = [1] * len(went)
        self.transport.exchange_rows(came.view(-1, 1), went.view(-1, 1), ones, ones, hop.group)
        both = torch.stack([went, came]).tolist()
        return both[0], both[1]


def true_places(mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Row and column of each of the ``count`` true elements of a matrix, by row.

    Unlike ``nonzero``, this does not make the host wait.
    """
    places = mask.flatten().logical_not().to(torch.uint8).argsort(stable=True)[:count]
    return places // mask.shape[1], places % mask.shape[1]


def added(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sums of ``values`` [m, h] by their ``rows`` [m], in float32: [count, h] of the values' type."""
    sums = values.new_zeros(count, values.shape[1], dtype=torch.float32)
    return sums.index_add(0, rows, values.float()).to(values.dtype)


class _Route(NamedTuple):
    """Messages of a hop in one direction: rows to and from each member."""

    transport: Transport
    hop: Hop
    went: list[int]
    came: list[int]

    def reversed(self) -> _Route:
        return _Route(self.transport, self.hop, self.came, self.went)

    def exchange(self, *parts: Tensor) -> list[Tensor]:
        """Send rows whose columns are those of the parts, as bytes in one message; the parts that come."""
        packed = [part.contiguous().view(torch.uint8) for part in parts]
        rows = torch.cat(packed, 1) if len(packed) > 1 else packed[0]
        received = rows.new_empty(sum(self.came), rows.shape[1])
        self.transport.exchange_rows(received, rows, self.came, self.went, self.hop.group)
        widths = [part.shape[1] for part in packed]
        return [
            columns.contiguous().view(part.dtype)
            for columns, part in zip(received.split(widths, 1), parts, strict=True)
        ]

    def encode(self, x: Tensor) -> Tensor:
        return x if self.hop.wire is None else self.hop.wire.encode(x)

    def decode(self, encoded: Tensor, x: Tensor) -> Tensor:
        """Rows that came, in the type and width of ``x``."""
        if self.hop.wire is None:
            return encoded
        out = x.new_empty(len(encoded), x.shape[1])
        self.hop.wire.decode(encoded, x.shape[1], out)
        return out


class _Send(torch.autograd.Function):
    """Rows with their weights and experts to members; the gradients of rows and weights come back."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, experts: Tensor, route: _Route
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.route = route
        encoded, factors, numbers = route.exchange(route.encode(x), weights, experts.to(torch.int32))
        theirs = numbers.long()
        ctx.mark_non_differentiable(theirs)
        return route.decode(encoded, x), factors, theirs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weights, _ = gradients
        back = ctx.route.reversed()
        encoded, factors = back.exchange(back.encode(x), weights)
        return back.decode(encoded, x), factors, None, None


class _Return(torch.autograd.Function):
    """Rows back to where they came from; the gradients go to where the rows were."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, route: _Route) -> Tensor:
        ctx.route = route
        (encoded,) = route.exchange(route.encode(x))
        return route.decode(encoded, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = gradients
        back = ctx.route.reversed()
        (encoded,) = back.exchange(back.encode(x))
        return back.decode(encoded, x), None
