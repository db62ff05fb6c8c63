"""What it takes to train on a number of tokens, over a ladder of node counts: days, node-hours, failures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.checkpoints import interval_s, write_s
from frontrunner.parallelism.planner.choose import simplest
from frontrunner.parallelism.planner.flops import model_flops_per_token
from frontrunner.parallelism.planner.headroom import usable_bytes, with_margin
from frontrunner.parallelism.planner.parameters import stage_units
from frontrunner.parallelism.planner.search import search

DAY_S = 86400
#: Seconds from the start of a job until it trains: Python, the network, loading a checkpoint. Assumed.
START_S = 300
#: Options that would take longer even at the devices' peak are not looked at: days without a limit, or
#: multiples of the limit. The largest ones are looked at in any case, from this share of the nodes.
_LONGEST_DAYS = 1500
_LATEST = 4
_LARGE = 1 / 32
#: The ladder ends where a node-hour gives this much less than at its best, if no limit asks for more.
_DEAREST = 3.0
#: Where nothing says how many days it may take, more nodes are not worth more node-hours than this, over
#: the cheapest option: faster ones mostly keep devices waiting.
_WORTH = 1.25


@dataclass(frozen=True)
class Span:
    """How long a run takes, and why. Checkpoints and failures are 0 if the machine file does not say how
    often nodes fail."""

    training_s: float
    total_s: float
    failures: float
    checkpoints: int
    checkpoint_interval_s: float | None


@dataclass(frozen=True)
class Option:
    """A number of nodes: ``layout`` as in a run file, its ``figures`` as ``plan --json`` has them, and of how
    many that cannot be told apart it is the simplest. All are None or 0 if no layout fits there."""

    nodes: int
    layout: dict[str, Any] | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    alike: int = 0
    span: Span | None = None

    @property
    def fits(self) -> bool:
        return self.span is not None

    @property
    def days(self) -> float:
        return self.span.total_s / DAY_S if self.span else math.inf

    @property
    def node_hours(self) -> float:
        return 24 * self.days * self.nodes


@dataclass(frozen=True)
class Limits:
    """What a user can spend; None: no limit."""

    node_hours: float | None = None
    days: float | None = None

    def allow(self, option: Option) -> bool:
        return option.node_hours <= (self.node_hours or math.inf) and option.days <= (self.days or math.inf)


def ladder(most: int) -> list[int]:
    """Node counts from 1: powers of two, and halfway between them."""
    powers = [2**power for power in range(most.bit_length())]
    return sorted(count for count in {*powers, *(3 * power for power in powers)} if count <= most)


def span(workload: Workload, nodes: int, training_s: float, job_s: float) -> Span | None:
    """The whole run: training, checkpoints, what failures lose, and the starts of jobs of ``job_s``.

    A failure costs half an interval between checkpoints and a start (Young 1974). Checkpoints count with
    their full time, as if nothing hid it. None if a run loses more than it trains.
    """
    machine = workload.machine
    cost, every, mtbf_s = 0.0, math.inf, math.inf
    lost = START_S / job_s
    if machine.reliability:
        cost = write_s(workload.model, machine, nodes)
        every = interval_s(cost, machine, nodes)
        mtbf_s = machine.reliability.node_mtbf_s / nodes
        lost += (every / 2 + START_S) / mtbf_s
    if lost >= 0.5:
        return None
    total = max(training_s * (1 + cost / every) / (1 - lost), training_s + START_S)
    periodic = not math.isinf(every)
    return Span(
        training_s,
        total,
        failures=total / mtbf_s,
        checkpoints=1 + int(training_s / every) if periodic else 0,
        checkpoint_interval_s=every if periodic else None,
    )


def options(
    workload: Workload,
    tokens: float,
    global_batch_size: int,
    counts: list[int],
    job_s: Callable[[int], float],
    limits: Limits,
    margin: float,
) -> Iterator[Option]:
    """An option for each of ``counts`` that divides the batch, up to where more nodes buy little.

    ``job_s`` gives the longest job of that many nodes. Layouts have no quantised messages: they change the
    numbers, which is not for a planner to decide.
    """
    cheapest = math.inf
    longest = _LONGEST_DAYS if limits.days is None else _LATEST * limits.days
    for nodes in counts:
        if days_at_peak(workload, tokens, nodes) > longest and nodes < _LARGE * counts[-1]:
            continue
        if _too_large(workload, nodes, margin):
            yield Option(nodes)
            continue
        option = _option(workload, tokens, global_batch_size, nodes, job_s(nodes), margin)
        if option is None:
            continue
        yield option
        cheapest = min(cheapest, option.node_hours)
        late = limits.days is not None and option.days > limits.days
        affordable = limits.node_hours is not None and option.node_hours <= limits.node_hours
        if option.node_hours > _DEAREST * cheapest and not late and not affordable:
            return


def _option(
    workload: Workload, tokens: float, global_batch_size: int, nodes: int, job_s: float, margin: float
) -> Option | None:
    """The option of that many nodes; None if no layout divides the batch there."""
    found, _ = with_margin(search(workload, nodes, global_batch_size, plain=True), margin)
    if not len(found.space.candidates):
        return None
    choice = simplest(found)
    if choice is None:
        return Option(nodes)
    devices = nodes * workload.machine.devices_per_node
    training_s = tokens / (float(found.estimated.tokens_per_s[choice.index]) * devices)
    return Option(
        nodes,
        found.space.layout(choice.index),
        found.estimated.as_dict(choice.index),
        choice.alike,
        span(workload, nodes, training_s, job_s),
    )


def recommended(found: list[Option], limits: Limits) -> Option | None:
    """The option to take, by :func:`rule`; None if the limits allow none."""
    allowed = [option for option in found if option.fits and limits.allow(option)]
    if not allowed:
        return None
    if limits.days is not None:
        return min(allowed, key=lambda option: (option.node_hours, option.nodes))
    least = min(option.node_hours for option in allowed)
    allowed = [option for option in allowed if option.node_hours <= _WORTH * least]
    return min(allowed, key=lambda option: (option.days, option.nodes))


def rule(limits: Limits) -> str:
    """How :func:`recommended` chooses, in words."""
    hours = "" if limits.node_hours is None else f"{limits.node_hours:,.10g} node-hours"
    if limits.days is None:
        within = f" within {hours}" if hours else ""
        return f"the fastest{within} that costs at most {100 * (_WORTH - 1):.0f} % more than the cheapest"
    return f"the fewest node-hours within {limits.days:,.10g} days{' and ' if hours else ''}{hours}"


def days_at_peak(workload: Workload, tokens: float, nodes: int) -> float:
    """Days if each device computed at its peak: no layout takes fewer. 0 if the peak is not known."""
    peaks = workload.machine.device.peak_flops_per_s
    devices = nodes * workload.machine.devices_per_node
    flops = tokens * model_flops_per_token(workload.model, workload.seq_len)
    return flops / (peaks.get("bfloat16", math.inf) * devices) / DAY_S


def _too_large(workload: Workload, nodes: int, margin: float) -> bool:
    """Whether the states alone do not fit, even if they are cut over all devices."""
    each = workload.compute_bytes + workload.gradient_bytes + 12
    devices = nodes * workload.machine.devices_per_node
    return each * stage_units(workload.model).numel / devices > usable_bytes(workload.machine, margin)
