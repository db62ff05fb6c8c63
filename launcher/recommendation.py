"""What `frontrunner advise` answers: the options of a machine for a number of tokens, and which to take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.site import QueueSpec, longest_s
from frontrunner.launcher.job_file import LONGEST_DAYS
from frontrunner.launcher.proposal import USUAL_TOKENS, needs_layouts
from frontrunner.parallelism.planner import campaign
from frontrunner.parallelism.planner.campaign import DAY_S, Limits, Option
from frontrunner.parallelism.planner.candidates import Workload
from frontrunner.parallelism.planner.headroom import with_margin
from frontrunner.parallelism.planner.search import search
from frontrunner.parallelism.planner.uncertainty import caveat
from frontrunner.slurm.policy import best_queue

#: A run that is predicted to take longer gets no time limit that a run file can hold.
_LONGEST_DAYS = 0.8 * LONGEST_DAYS
#: A queue and its name; None if the site's limits are unknown.
Queue = tuple[str, QueueSpec] | None


@dataclass(frozen=True)
class Advised:
    """The answer. ``spec`` has the model, the machine and the length of a sequence; ``queues`` are by number
    of nodes."""

    spec: RunSpec
    tokens: float
    global_batch_size: int
    limits: Limits
    margin: float
    options: list[Option]
    queues: dict[int, Queue]
    recommended: Option
    rule: str

    def jobs(self, option: Option) -> int | None:
        """Jobs of a run, one after the other; None if the site's limits are unknown."""
        job_s = _job_s(self.queues[option.nodes], option.nodes)
        return None if math.isinf(job_s) or not option.span else math.ceil(option.span.total_s / job_s)

    def entry(self, option: Option) -> dict[str, Any]:
        """One of ``options`` in ``--json``; figures are null if no layout fits."""
        queue, span = self.queues[option.nodes], option.span
        named = {"nodes": option.nodes, "queue": queue[0] if queue else None, "fits": option.fits}
        names = ("layout", "days", "node_hours", "days_interval", "failures_expected", "training_days")
        more = ("jobs", "checkpoints", "checkpoint_interval_s", "mfu", "tokens_per_s_per_device")
        if span is None:
            return named | dict.fromkeys((*names, *more, "peak_memory_bytes_per_device"))
        figures = option.figures
        return named | {
            "layout": option.layout,
            "days": option.days,
            "node_hours": option.node_hours,
            "days_interval": interval(option),
            "failures_expected": span.failures if self.spec.machine.reliability else None,
            "training_days": span.training_s / DAY_S,
            "jobs": self.jobs(option),
            "checkpoints": span.checkpoints,
            "checkpoint_interval_s": span.checkpoint_interval_s,
            "mfu": figures["mfu"],
            "tokens_per_s_per_device": figures["tokens_per_s_per_device"],
            "peak_memory_bytes_per_device": figures["peak_memory_bytes_per_device"],
        }

    def as_dict(self) -> dict[str, Any]:
        """The contract of ``--json``, without the run file."""
        return {
            "options": [self.entry(option) for option in self.options],
            "recommended": self.entry(self.recommended),
            "rule": self.rule,
            "tokens": self.tokens,
            "seq_len": self.spec.training.seq_len,
            "global_batch_size": self.global_batch_size,
            "margin": self.margin,
            "assumptions": self.assumptions(),
        }

    def assumptions(self) -> list[str]:
        """What days and node-hours count, in sentences."""
        start = f"each start of a job takes {campaign.START_S // 60} minutes (assumed)"
        said = [f"days: training and {start}; waiting in queues is not counted"]
        machine = self.spec.machine
        if machine.reliability:
            years = machine.reliability.node_mtbf_s / DAY_S / 365
            said.append(
                f"a node fails once in {years:.2g} years; a failure costs half the time between two "
                "checkpoints and a start; checkpoints hide behind nothing"
            )
        else:
            said.append(f"no failures: {machine.name}'s machine file has no `reliability` section")
        said.append("the same batch at each number of nodes, and no quantised messages")
        if why := caveat(Workload.of(self.spec)):
            said.append(f"speed: {why}")
        return said


def interval(option: Option) -> list[float] | None:
    """The fewest and most days, from the interval of the planner's speed; None if it gives none."""
    share = option.figures.get("interval_pct")
    if share is None:
        return None
    return [option.days / (1 + share / 100), option.days / max(1 - share / 100, 0.01)]


def usual_batch(spec: RunSpec) -> int:
    """About :data:`USUAL_TOKENS` in a number of sequences that many numbers of devices divide."""
    odd = spec.machine.devices_per_node
    while odd % 2 == 0:
        odd //= 2
    wanted = USUAL_TOKENS / spec.training.seq_len / odd
    return odd << max(0, round(math.log2(wanted)))


def advised(
    spec: RunSpec, workload: Workload, tokens: float, batch: int, limits: Limits, margin: float
) -> Advised:
    """The options and the one to take; SpecError says what would be enough if there is none."""
    machine = spec.machine
    queues: dict[int, Queue] = {n: best_queue(machine.site, n) for n in campaign.ladder(machine.num_nodes)}
    if machine.site.queues:
        queues = {nodes: queue for nodes, queue in queues.items() if queue}
    if not queues:
        constraint = f"{machine.name} has no queue for runs of more than one job"
        raise SpecError([Violation("machine", None, constraint, "add yours to site.queues")])
    options = [
        *campaign.options(workload, tokens, batch, [*queues], lambda n: _job_s(queues[n], n), limits, margin)
    ]
    if not any(option.fits for option in options):
        _explain_none(spec, workload, batch, max(queues), margin)
    found = campaign.recommended(options, limits)
    if found is None:
        raise SpecError([_enough(options, limits)])
    if found.days > _LONGEST_DAYS:
        fewer = _down(tokens * _LONGEST_DAYS / found.days)
        constraint = f"the best option, {_said(found)}, and a run file says at most {LONGEST_DAYS} days"
        fix = f"use {fewer} or fewer"
        try:
            advised(spec, workload, float(fewer), batch, limits, margin)
        except SpecError as error:  # with fewer tokens another number of nodes is the best
            fix = error.violations[0].fix
        raise SpecError([Violation("--tokens", tokens, constraint, fix)])
    return Advised(spec, tokens, batch, limits, margin, options, queues, found, campaign.rule(limits))


def _job_s(queue: Queue, nodes: int) -> float:
    """The longest job of that size."""
    limit = queue[1].limit(nodes) if queue else None
    return longest_s(limit) if limit else math.inf


def _explain_none(spec: RunSpec, workload: Workload, batch: int, most: int, margin: float) -> None:
    """Raises SpecError: why no number of nodes is an option."""
    largest, _ = with_margin(search(workload, most, batch, plain=True), margin)
    needs_layouts(largest, spec.model_copy(update={"nodes": most}), batch, margin=margin)
    constraint = f"leaves no layout of {spec.model.name} on 1 to {most} nodes of {spec.machine.name}"
    raise SpecError([Violation("--global-batch-size", batch, constraint, "use a power of two")])


def _enough(options: list[Option], limits: Limits) -> Violation:
    """What limits would allow, if these allow nothing."""
    fitting = [option for option in options if option.fits]
    cheapest = min(fitting, key=lambda option: option.node_hours)
    fastest = min(fitting, key=lambda option: option.days)
    hours, days = limits.node_hours, limits.days
    if hours is not None and cheapest.node_hours > hours:
        constraint = f"the cheapest option, {_said(cheapest)}"
        return Violation("--node-hours", hours, constraint, f"use {_up(cheapest.node_hours)} or more")
    if days is not None and fastest.days > days:
        constraint = f"the fastest option, {_said(fastest)}"
        return Violation("--days", days, constraint, f"use {_up(fastest.days)} or more")
    assert hours is not None and days is not None
    quick = min((o for o in fitting if o.node_hours <= hours), key=lambda option: option.days)
    cheap = min((o for o in fitting if o.days <= days), key=lambda option: option.node_hours)
    constraint = f"the fastest within {hours:,.10g} node-hours, {_said(quick)}"
    fix = f"use {_up(quick.days)} or more, or {_up(cheap.node_hours)} node-hours"
    return Violation("--days", days, constraint, fix)


def _said(option: Option) -> str:
    return f"{option.nodes} nodes, takes {_up(option.days)} days and {_up(option.node_hours)} node-hours"


def _up(number: float) -> str:
    """A number rounded up to three digits, to be typed."""
    size = 10.0 ** (math.floor(math.log10(number)) - 2)
    return f"{math.ceil(number / size) * size:.10g}"


def _down(number: float) -> str:
    """A number rounded down to one digit, to be typed."""
    size = 10.0 ** math.floor(math.log10(number))
    return f"{math.floor(number / size) * size:.0e}"
