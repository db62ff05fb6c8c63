"""The predicted step as a trace: a process per pipeline stage, threads for computing and communication.

Every duration is the planner's. Pieces of computing run in the engine's order (:mod:`pipeline_order`); what
the planner counts as exposed is the time that computing waits for messages of data-parallel ranks, and the
rest of these overlaps it. The step ends when :mod:`step_time` says. For models without experts.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import NamedTuple

import numpy as np

from frontrunner.configs.schema import RunSpec
from frontrunner.parallelism import trace_events as names
from frontrunner.parallelism.layout import Layout
from frontrunner.parallelism.planner.candidates import Candidates, Workload
from frontrunner.parallelism.planner.collectives import Fabric, Times
from frontrunner.parallelism.planner.memory import stage_parameters
from frontrunner.parallelism.planner.pipeline_order import Costs, Run, run, sender
from frontrunner.parallelism.planner.step_time import MicroBatch, StepTime, micro_batch, step_time
from frontrunner.parallelism.trace_events import Trace

Seconds = dict[str, float]
#: The planner takes stages to be on different nodes.
_BETWEEN_STAGES = names.track(names.PIPELINE, "network")


class Measured(NamedTuple):
    """Computing that takes the place of the machine's rates, as in :func:`step_time`."""

    computing: MicroBatch | None = None
    optimizer_s: float | None = None


NOTHING = Measured()


class Message(NamedTuple):
    """A collective: its lane and name, and for how long it keeps each level's link busy."""

    lane: str
    name: str
    busy_s: Seconds

    @property
    def longest(self) -> float:
        return max(self.busy_s.values())


class Exposed(NamedTuple):
    """Seconds that computing waits for data-parallel messages, as the planner has them.

    ``weights`` in each forward, ``backward`` in each backward; ``tail`` after the last one; ``update`` after
    the optimizer.
    """

    weights: float
    backward: float
    tail: float
    update: float


class _Stage(NamedTuple):
    """Seconds of one piece (a micro-batch on a chunk) on a stage."""

    forward: float
    recompute: float
    backward: float
    tensor_forward: float
    tensor_backward: float
    costs: Costs


class _Step:
    """The planner's figures for one layout, as floats."""

    def __init__(self, workload: Workload, spec: RunSpec, layout: Layout, measured: Measured) -> None:
        self.layout = layout
        self.count, self.chunks = spec.grad_accum_steps, layout.virtual_stages
        c, fabric = Candidates.of(spec, layout), Fabric(workload.machine, workload.software)
        self.time = step_time(workload, c, *measured)
        self.exposed = _exposed(workload, c, self.time, measured)
        self.message_s = float(self.time.pipeline[0]) / self.count / 2 / self.chunks
        self.gather, self.second, self.block, self.reduction, self.update = _messages(workload, c, fabric)
        # Which links tensor-parallel messages use, and in which halves.
        self.tensor_links = _busy(fabric.ring(c.tensor, np.ones(1), np.full(1, 1e9)))
        halves = (names.ALL_GATHER, names.REDUCE_SCATTER)
        self.tensor_names = halves if c.sequence_parallel[0] else (names.ALL_REDUCE,)
        self.stages = [
            self._stage(measured.computing or micro_batch(workload, c, np.full(1, float(index)), fabric))
            for index in range(layout.pipeline)
        ]

    def _stage(self, whole: MicroBatch) -> _Stage:
        share, exposed = 1 / self.chunks, self.exposed
        parts = [name for name in _Stage._fields if name != "costs"]
        one = {name: float(getattr(whole, name)[0]) * share for name in parts}
        # Weights come before a backward, and gradients leave behind it: each has its share of the waiting.
        both = self.second.longest + self.block.longest
        before = exposed.backward * (self.second.longest / both if both else 0.0)
        costs = Costs(
            forward=one["forward"] + one["tensor_forward"],
            backward=one["recompute"] + one["backward"] + one["tensor_backward"],
            message=self.message_s,
            before_forward=exposed.weights * share,
            before_backward=before * share,
            after_backward=(exposed.backward - before) * share,
        )
        return _Stage(**one, costs=costs)


def predicted_trace(spec: RunSpec, layout: Layout, workload: Workload, measured: Measured = NOTHING) -> str:
    """The text of a trace file for one step of ``spec``.

    ``workload`` must have rates (``software``), or computing be ``measured``.
    """
    step = _Step(workload, spec, layout, measured)
    runs = run([stage.costs for stage in step.stages], step.chunks, step.count)
    waiting = step.stages[0].costs.after_backward + step.exposed.tail
    optimizer_s = max(done[-1].sent for done in runs) + waiting
    trace, stages, total = Trace(), list[dict[str, object]](), float(step.time.total[0])
    for index, done in enumerate(runs):
        parts = _parts(step, step.stages[index])
        bubble = parts["bubble"] / total
        stages.append({"stage": index, "parts_s": parts, "bubble_share": bubble})
        rank = layout.rank(tensor=0, data=0, pipeline=index)
        trace.process(index, rank, f"bubble {bubble:.1%} of the step")
        for one in done:
            _piece(trace, step, index, one)
        _end_of_step(trace, step, index, done[-1], optimizer_s)
    _flows(trace, step, runs)
    return trace.text(
        {
            "kind": "predicted",
            "run": spec.name,
            "machine": spec.machine.name,
            "step_time_s": total,
            "step_time_parts_s": {f.name: float(getattr(step.time, f.name)[0]) for f in fields(step.time)},
            "stages": stages,
        }
    )


def _parts(step: _Step, stage: _Stage) -> Seconds:
    """Seconds of a stage's step by part, as in :class:`StepTime`. In gaps of its compute thread it waits for
    the parts that are messages, and else for other stages: the bubble."""
    pieces = step.count * step.chunks
    found = {
        "compute": pieces * (stage.forward + stage.backward),
        "recompute": pieces * stage.recompute,
        "tensor": pieces * (stage.tensor_forward + stage.tensor_backward),
    }
    kept = ("dispatch", "pipeline", "weights", "gradients", "update", "optimizer", "stragglers")
    found |= {name: float(getattr(step.time, name)[0]) for name in kept}
    return found | {"bubble": max(0.0, float(step.time.total[0]) - sum(found.values()))}


def _exposed(workload: Workload, c: Candidates, time: StepTime, measured: Measured) -> Exposed:
    """What is exposed in each micro-batch, and once per step.

    A step of two micro-batches exposes that of one more than a step of one.
    """
    one, two = (
        float(step_time(workload, replace(c, grad_accum_steps=np.full(1, count)), *measured).gradients[0])
        for count in (1.0, 2.0)
    )
    m, backward = float(c.grad_accum_steps[0]), max(0.0, two - one)
    tail = max(0.0, float(time.gradients[0]) - m * backward)
    return Exposed(float(time.weights[0]) / m, backward, tail, float(time.update[0]))


def _messages(
    workload: Workload, c: Candidates, fabric: Fabric
) -> tuple[Message, Message, Message, list[Message], list[Message]]:
    """The data-parallel messages of a micro-batch (weights forward and backward, gradients), then those of a
    step (reduction, update), on the links that :func:`step_time.data_parallel` gives them."""
    stage, width = stage_parameters(workload, c, np.zeros(1)), float(workload.compute_bytes)
    numel, units = stage.numel, stage.layer_count + (stage.embedding > 0)
    w, g, o, t = c.weights, c.gradients, c.optimizer, c.tensor
    copies, weight = c.data / o, workload.weight_bytes(c)
    reduce = fabric.reduce_scatter if workload.profile.scatters else fabric.exchange

    def made(lane: str, name: str, times: Times) -> Message:
        return Message(lane, name, _busy(times))

    return (
        made(names.WEIGHTS, names.ALL_GATHER, fabric.ring(w, t, numel * c.weight_wire, units)),
        made(
            names.WEIGHTS, names.ALL_GATHER, fabric.ring(c.secondary, t, stage.layers * c.weight_wire, units)
        ),
        made(names.GRADIENTS, names.REDUCE_SCATTER, reduce(g, t, numel * c.gradient_wire, units)),
        [
            made(
                names.REDUCTION,
                names.REDUCE_SCATTER,
                fabric.exchange(o / g, t * g, numel / g * c.network_wire, units)
                + fabric.exchange(copies, t * o, numel / o * c.network_wire, units),
            ),
            made(names.REDUCTION, names.ALL_GATHER, fabric.ring(copies, t * o, numel / o * width, units)),
        ],
        [
            made(names.UPDATE, names.ALL_GATHER, fabric.ring(o / g, t * g, numel / g * weight, units)),
            made(names.UPDATE, names.ALL_GATHER, fabric.ring(g / w, t * w, numel / w * weight, units)),
        ],
    )


def _busy(times: Times) -> Seconds:
    return {level: float(np.broadcast_to(getattr(times, level), 1)[0]) for level in names.LEVELS}


def _piece(trace: Trace, step: _Step, index: int, run: Run) -> None:
    """The slices of one forward or backward, and those of its messages."""
    stage, share, piece = step.stages[index], 1 / step.chunks, run.piece
    costs = stage.costs
    about = {"micro_batch": piece.micro_batch, "chunk": piece.chunk}
    at = run.start
    parts = {names.FORWARD: stage.forward}
    if piece.backward:
        parts = {names.RECOMPUTE: stage.recompute, names.BACKWARD: stage.backward}
    for name, seconds in parts.items():
        trace.slice(index, names.COMPUTE, name, at, at + seconds, **about)
        at += seconds
    _tensor(trace, step, index, at, run.end, about)
    if sender(piece, index, len(step.stages), step.chunks) is not None:
        start = _received(run, costs)
        trace.slice(index, _BETWEEN_STAGES, names.RECEIVE, start, start + costs.message, **about)
    elif run.sent > run.end:
        trace.slice(index, _BETWEEN_STAGES, names.SEND, run.end, run.sent, **about)
    if piece.backward:
        _spread(trace, index, step.second, run.start - costs.before_backward, share, about)
        end = run.end + costs.after_backward
        _spread(trace, index, step.block, end - step.block.longest * share, share, about)
    else:
        _spread(trace, index, step.gather, run.start - costs.before_forward, share, about)


def _received(run: Run, costs: Costs) -> float:
    """When a piece's message begins: before the weights that it waits for, or later if it comes later."""
    waited = costs.before_backward if run.piece.backward else costs.before_forward
    return max(run.receive, run.start - costs.message - waited)


def _tensor(trace: Trace, step: _Step, index: int, start: float, end: float, about: dict[str, int]) -> None:
    """Tensor-parallel messages: all-reduces, or with sequence parallelism their two halves."""
    longest, length = max(step.tensor_links.values()), (end - start) / len(step.tensor_names)
    for name in step.tensor_names if longest else ():
        for level, busy in step.tensor_links.items():
            lane = names.track(names.TENSOR, level)
            trace.slice(index, lane, name, start, start + length * busy / longest, **about)
        start += length


def _spread(
    trace: Trace, index: int, message: Message, start: float, share: float, about: dict[str, int]
) -> None:
    """A message on each level that it keeps busy."""
    for level, seconds in message.busy_s.items():
        lane = names.track(message.lane, level)
        trace.slice(index, lane, message.name, start, start + seconds * share, **about)


def _end_of_step(trace: Trace, step: _Step, index: int, last: Run, optimizer_s: float) -> None:
    """The reduction that the last backward hides in part, the optimizer, and the update."""
    end = last.sent + step.stages[index].costs.after_backward + step.exposed.tail
    _sequence(trace, index, step.reduction, end - _in_turn(step.reduction))
    end = optimizer_s + float(step.time.optimizer[0])
    trace.slice(index, names.COMPUTE, names.OPTIMIZER, optimizer_s, end)
    # The next step's first forward hides the rest; what this step's hides is left of the step before.
    exposed = step.exposed.update
    _sequence(trace, index, step.update, -exposed, first=0.0)
    _sequence(trace, index, step.update, end, last=end + exposed)
    end += exposed
    trace.slice(index, names.COMPUTE, names.STRAGGLERS, end, end + float(step.time.stragglers[0]))


def _in_turn(messages: list[Message]) -> float:
    """Seconds of messages that follow one another on each level."""
    return max(sum(message.busy_s[level] for message in messages) for level in names.LEVELS)


def _sequence(
    trace: Trace,
    index: int,
    messages: list[Message],
    at: float,
    first: float = float("-inf"),
    last: float = float("inf"),
) -> None:
    """Messages from ``at``, one after the other on each level; only what lies in ``first`` .. ``last``."""
    for level in names.LEVELS:
        start = at
        for message in messages:
            end = start + message.busy_s[level]
            lane = names.track(message.lane, level)
            trace.slice(index, lane, message.name, max(start, first), min(end, last))
            start = end


def _flows(trace: Trace, step: _Step, runs: list[list[Run]]) -> None:
    """An arrow from the piece of another stage that a piece needs, to the message's reception."""
    sent = {(index, one.piece): one for index, done in enumerate(runs) for one in done}
    for index, done in enumerate(runs):
        for one in done:
            source = sender(one.piece, index, len(runs), step.chunks)
            if source is None:
                continue
            stage, before = step.stages[source[0]], sent[source]
            tensor = stage.tensor_backward if one.piece.backward else stage.tensor_forward
            name = "gradient" if one.piece.backward else "activation"
            begun = (source[0], names.COMPUTE, before.end - tensor)
            if before.sent > before.end:
                begun = (source[0], _BETWEEN_STAGES, before.sent)
            trace.flow(name, begun, (index, _BETWEEN_STAGES, _received(one, step.stages[index].costs)))
