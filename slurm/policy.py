"""Site policy: the queue of a run, its segments, and refusals that quote the rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import MachineSpec, RunSpec
from frontrunner.configs.site import QueueSpec, SiteSpec, SizeLimit, longest_s
from frontrunner.configs.slurm import clock, seconds

SHORTEST_JOB_S = 60  # Slurm counts in minutes
#: Keys that decide which limit of the site holds.
_SIZE = ("nodes", "slurm.partition", "slurm.qos", "machine")


@dataclass(frozen=True)
class Schedule:
    """How a run is split into jobs. ``queue`` is None if the site's limits are unknown."""

    queue: QueueSpec | None
    partition: str | None
    qos: str | None
    total_s: int
    segment_s: int
    signal_s: int

    @property
    def segments(self) -> int:
        return -(-self.total_s // self.segment_s)

    def time_s(self, segment: int) -> int:
        """Wall time of a segment, counted from 1; the last one gets the rest."""
        left = self.total_s - (segment - 1) * self.segment_s
        return max(SHORTEST_JOB_S, min(self.segment_s, left))


def schedule(spec: RunSpec, *, preview: bool = False) -> Schedule:
    """The jobs of a run; SpecError lists every site rule that it breaks. A ``preview`` needs no account."""
    if not describes_cluster(spec.machine):
        raise SpecError([_no_cluster(spec)])
    found = [] if preview else list(identity(spec))
    queue = None
    try:
        queue = _queue(spec)
    except SpecError as error:
        raise SpecError([*found, *error.violations]) from None
    found += _times(spec, queue)
    if found:
        raise SpecError(found)
    slurm = spec.slurm
    total, each = _lengths(spec, queue.limit(spec.nodes) if queue else None)
    partition = queue.partition if queue else slurm.partition
    return Schedule(queue, partition, slurm.qos, total, each, signal_s=seconds(slurm.signal_before_end))


def describes_cluster(machine: MachineSpec) -> bool:
    """Whether the machine file describes a cluster, which takes jobs, and not only a kind of node."""
    return machine.site != SiteSpec(is_cluster=False)


def best_queue(site: SiteSpec, nodes: int) -> tuple[str, QueueSpec] | None:
    """The queue, with its name, that lets a long run of that size run longest at a time; None: none does.

    Queues that forbid chains of jobs are not for long runs.
    """
    found = [
        (longest_s(limit), name, queue)
        for name, queue in site.queues.items()
        if queue.chains and (limit := queue.limit(nodes))
    ]
    if not found:
        return None
    _, name, queue = max(found, key=lambda each: each[0])
    return name, queue


def too_many_jobs(spec: RunSpec, queue: QueueSpec | None, jobs: int) -> SpecError | None:
    """The refusal of another job for a user with ``jobs`` jobs; None if it is allowed."""
    if queue is None or queue.max_jobs is None or jobs < queue.max_jobs:
        return None
    constraint = f"you already have {jobs} jobs: {_quote(spec, queue.jobs_rule or str(queue.max_jobs))}"
    return SpecError([Violation("slurm", None, constraint, "wait until one has ended, or cancel one")])


def _quote(spec: RunSpec, rule: str) -> str:
    """The rule in quotes, with its source."""
    source = spec.machine.sources.get("site.queues")
    where = f" ({source.source}, {source.date})" if source else ""
    return f'{spec.machine.name} says "{rule}"{where}'


def _no_cluster(spec: RunSpec) -> Violation:
    """The machine file describes a kind of node: nothing is known of the cluster that has it."""
    name = spec.machine.name
    constraint = (
        f"{name} is a kind of node and no cluster: its file has no queues, modules or variables for jobs"
    )
    fix = f"write a machine file with `extends: {name}` and the cluster's `site`, and name it as machine"
    return Violation("machine", name, constraint, fix)


def identity(spec: RunSpec) -> Iterator[Violation]:
    """The account that the site requires, if the run names none."""
    if spec.machine.site.account_required and spec.slurm.account is None:
        constraint = f"{spec.machine.name} requires an account"
        fix = "give --account PROJECT, or set slurm.account to PROJECT"
        others = {"machine": "its jobs require slurm.account"}
        yield Violation("slurm.account", None, constraint, fix).at(others)


def _queue(spec: RunSpec) -> QueueSpec | None:
    """The queue that the run requests, or the first that accepts its size."""
    slurm, queues = spec.slurm, spec.machine.site.queues
    if not queues:
        return None
    known = [q for q in queues.values() if slurm.partition in (None, q.partition) and slurm.qos == q.qos]
    if not known:
        raise SpecError([_unknown_queue(spec, list(queues.values()))])
    fitting = [queue for queue in known if queue.limit(spec.nodes)]
    if not fitting:
        largest = max(known, key=lambda queue: queue.max_nodes)
        rule = f"{largest.max_nodes} in {largest.partition}: {_quote(spec, largest.limits[-1].rule)}"
        said = f"has no queue for nodes {spec.nodes}, at most {rule}"
        others = dict.fromkeys(("slurm.partition", "slurm.qos", "machine"), said)
        violation = Violation("nodes", spec.nodes, f"at most {rule}", f"use at most {largest.max_nodes}")
        raise SpecError([violation.at(others)])
    return fitting[0]


def _unknown_queue(spec: RunSpec, queues: Sequence[QueueSpec]) -> Violation:
    """The site has no such partition, or no such quality of service in it."""
    slurm = spec.slurm
    beside = [queue for queue in queues if slurm.partition in (None, queue.partition)]
    key = "qos" if beside else "partition"
    choices = dict.fromkeys(getattr(queue, key) or "null" for queue in beside or queues)
    have = ", ".join(f"{q.partition}{f' with qos {q.qos}' if q.qos else ''}" for q in queues)
    others = {
        "machine": f"has {have}, not {key} {getattr(slurm, key)}",
        "slurm.partition": f"needs another {key}",
    }
    constraint = f"{spec.machine.name} has {have}"
    fix = f"use {' or '.join(choices)}, or add yours to site.queues in the machine file"
    return Violation(f"slurm.{key}", getattr(slurm, key), constraint, fix).at(others)


def _lengths(spec: RunSpec, limit: SizeLimit | None) -> tuple[int, int]:
    """Seconds of the whole run and of one of its jobs."""
    slurm = spec.slurm
    longest = longest_s(limit) if limit else None
    total = seconds(slurm.time_limit) if slurm.time_limit else longest or 0
    wished = seconds(slurm.segment_time) if slurm.segment_time else total
    return total, min(total, wished, longest or total)


def _times(spec: RunSpec, queue: QueueSpec | None) -> Iterator[Violation]:
    slurm = spec.slurm
    limit = queue.limit(spec.nodes) if queue else None
    if slurm.time_limit is None and limit is None:
        constraint = f"is missing, and {spec.machine.name} has no default limit"
        fix = "give --time 2:00:00, or set slurm.time_limit to 2:00:00"
        others = {"machine": "has no default for slurm.time_limit"}
        yield Violation("slurm.time_limit", None, constraint, fix).at(others)
        return
    if limit and slurm.segment_time and seconds(slurm.segment_time) > longest_s(limit):
        constraint = f"exceeds the limit for a job of {spec.nodes} nodes: {_quote(spec, limit.rule)}"
        said = f"slurm.segment_time {slurm.segment_time} {constraint}"
        violation = Violation(
            "slurm.segment_time", slurm.segment_time, constraint, f"use at most {clock(longest_s(limit))}"
        )
        yield violation.at(dict.fromkeys(_SIZE, said))
        return
    total, each = _lengths(spec, limit)
    if limit and queue and not queue.chains and total > each:
        what = f"needs {-(-total // each)} jobs of {clock(each)}"
        constraint = f'{what}: {_quote(spec, limit.rule)} and "{queue.chains_rule or "no chains of jobs"}"'
        others = dict.fromkeys(("slurm.segment_time", *_SIZE), f"the run {constraint}")
        violation = Violation("slurm.time_limit", slurm.time_limit, constraint, f"use at most {clock(each)}")
        yield violation.at(others)
    if each < SHORTEST_JOB_S:
        key = "segment_time" if slurm.segment_time else "time_limit"
        yield Violation(f"slurm.{key}", getattr(slurm, key), "must be at least a minute", "use 1m or more")
    elif 2 * seconds(slurm.signal_before_end) > each:
        before = slurm.signal_before_end
        constraint = f"must be at most half of a job's {clock(each)}"
        fix = f"use {clock(each // 2)} or less"
        if each == total and slurm.time_limit:
            fix += f", or set slurm.time_limit to {clock(2 * seconds(before))} or more"
        said = f"gives jobs of {clock(each)}, less than twice signal_before_end {before}"
        violation = Violation("slurm.signal_before_end", before, constraint, fix)
        yield violation.at(dict.fromkeys(("slurm.segment_time", "slurm.time_limit", *_SIZE), said))
