"""Estimates all legal layouts of a model on a machine at once, and ranks them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from frontrunner.configs import legal
from frontrunner.configs.sharding import PRESET_WIRES, SHARDING_PRESETS, Level, Precision, Wire
from frontrunner.parallelism.planner.candidates import (
    RECOMPUTE,
    Array,
    Candidates,
    Index,
    Rows,
    Shared,
    Workload,
    constant,
)
from frontrunner.parallelism.planner.expert_hops import has_two_hops
from frontrunner.parallelism.planner.expert_stages import uneven
from frontrunner.parallelism.planner.plan import Estimate, estimate
from frontrunner.parallelism.planner.traffic import wire_bytes

#: Levels by increasing number of ranks, and all nested triples; the last has ZeRO++'s secondary weights.
LEVELS: tuple[Level | Literal[1], ...] = (1, "package", "node", "all")
TRIPLES = [*itertools.combinations_with_replacement(range(4), 3), (3, 3, 3)]
SECONDARY = len(TRIPLES) - 1
#: Wire formats (weights, gradients, network) in addition to the run's precision.
QUANTISED: tuple[tuple[Wire, Wire, Wire | None], ...] = (("int8", "int4", None), ("int8", "int4", "int4"))
LARGEST_MICRO_BATCH = 32
MOST_VIRTUAL_STAGES = 16
BLOCK = 256
#: The axes of a shape.
SHAPE = (
    *("tensor", "sequence_parallel", "pipeline", "virtual_stages", "micro_batch_size", "recompute"),
    *("expert", "flat_dispatch"),
)


@dataclass(frozen=True)
class Space:
    """Legal layouts: the candidates, and their names in a run file."""

    candidates: Candidates
    triple: Index
    wires: Index
    precision: Precision
    considered: int
    shared: Shared
    has_experts: bool = False

    def layout(self, index: int) -> dict[str, Any]:
        """The ``layout`` section of a run file; ``wire`` appears only if it differs from the preset's."""
        c = self.candidates
        degrees = tuple(LEVELS[level] for level in TRIPLES[self.triple[index]])
        secondary = self.triple[index] == SECONDARY
        presets = [name for name, triple in SHARDING_PRESETS.items() if triple == degrees]
        preset = ("zeropp" if secondary else presets[0]) if presets else None
        sharding: dict[str, Any] = {"preset": preset}
        if preset is None:
            sharding = dict(zip(("weights", "gradients", "optimizer"), degrees, strict=True))
        plain = (self.precision,) * 3
        chosen = self.wires[index]
        wires = plain if chosen == 0 else tuple(wire or self.precision for wire in QUANTISED[chosen - 1])
        if wires != (PRESET_WIRES.get(preset, plain) if preset else plain):
            sharding["wire"] = dict(zip(("weights", "gradients", "network"), wires, strict=True))
        own: dict[str, Any] = {}
        if self.has_experts:
            own = {
                "expert": int(c.expert[index]),
                "dispatch": "flat" if c.flat_dispatch[index] else "hierarchical",
            }
        return {
            "tensor": int(c.tensor[index]),
            "sequence_parallel": bool(c.sequence_parallel[index]),
            "pipeline": int(c.pipeline[index]),
            "virtual_stages": int(c.virtual_stages[index]),
            "micro_batch_size": int(c.micro_batch_size[index]),
            "recompute": RECOMPUTE[int(c.recompute[index])],
            **own,
            "sharding": sharding,
        }


@dataclass(frozen=True)
class Ranking:
    """All legal layouts, estimated. ``order`` holds the indices of those that fit, fastest first."""

    space: Space
    estimated: Estimate
    order: Index

    def pareto(self) -> list[int]:
        """Indices of the Pareto front of speed and memory, fastest first."""
        front, least = [], np.inf
        peaks = self.estimated.memory.peak
        for index in self.order:
            if peaks[index] < least:
                front.append(int(index))
                least = float(peaks[index])
        return front

    def nearest_miss(self) -> int:
        """The layout that needs the least memory."""
        return int(np.argmin(self.estimated.memory.peak))

    def place(self, layout: Candidates) -> int | None:
        """The rank of one layout in the order (from 0), ignoring wires; None if it is not there."""
        matching = np.ones(len(self.space.candidates), dtype=bool)
        for key in (*SHAPE, "weights", "gradients", "optimizer", "secondary"):
            matching &= getattr(self.space.candidates, key) == getattr(layout, key)
        places = np.flatnonzero(matching[self.order])
        return int(places[0]) if len(places) else None


def space(
    workload: Workload,
    nodes: int,
    global_batch_size: int,
    precision: Precision = "bfloat16",
    *,
    plain: bool = False,
) -> Space:
    """The legal layouts on ``nodes`` nodes; ``plain``: only those without quantised messages.

    Of models with experts, ``flat`` dispatch is only there where it differs, and tokens are not quantised.
    """
    model, machine = workload.model, workload.machine
    axes = [
        _divisors(machine.devices_per_node),
        (0, 1),
        _divisors(model.num_layers),
        _divisors(model.num_layers, MOST_VIRTUAL_STAGES),
        _divisors(global_batch_size, LARGEST_MICRO_BATCH),
        range(len(RECOMPUTE)),
        _divisors(model.experts.num_experts) if model.experts else (1,),
        (0, 1) if model.experts else (0,),
    ]
    axes[0] = [tensor for tensor in axes[0] if legal.divides_all(tensor, _tensor_sizes(workload))]
    grids = [grid.ravel() for grid in np.meshgrid(*[np.array(axis) for axis in axes], indexing="ij")]
    wire_formats = 1 if plain else 1 + len(QUANTISED)
    considered = grids[0].size * len(TRIPLES) * wire_formats

    def cut() -> legal.Cut:
        return _cut(workload, nodes, global_batch_size, *grids[:5], grids[6])

    for rules in (
        (legal.tensor_fits_key_values,),
        (legal.model_ranks_divide_world, legal.stages_divide_layers, legal.interleaving_has_stages),
        (legal.expert_ranks_divide_data,) if model.experts else (),
        (legal.sequence_parallel_has_ranks, legal.tensor_divides_sequence),
        (legal.ranks_divide_batch,),
        (legal.stages_divide_micro_batches,),
    ):
        keep = np.ones(len(grids[0]), dtype=bool)
        for rule in rules:
            keep &= rule(cut())
        grids = [grid[keep] for grid in grids]
    if model.experts:
        keep = (grids[7] == 0) | has_two_hops(workload, grids[0], grids[6])
        grids = [grid[keep] for grid in grids]
    own = dict(zip((*SHAPE, "grad_accum_steps"), (*grids, legal.micro_batches(cut())), strict=True))
    pairs, pair = np.unique(_cut_by(workload, grids), return_inverse=True)
    one = _rows(pair, len(pairs)).one
    tensor, pipeline, expert = (grids[axis][one] for axis in (0, 2, 6))
    cuts, triple, wires, of_pair = _cuts(
        workload, nodes, global_batch_size, tensor, pipeline, expert, wire_formats
    )
    begin = np.searchsorted(of_pair, np.arange(len(pairs) + 1))
    count = np.diff(begin)[pair]
    end = np.cumsum(count)
    shape_of = np.repeat(np.arange(len(pair)), count)
    cut_of = np.arange(len(shape_of)) + np.repeat(begin[pair] - (end - count), count)
    wire = [_wire_bytes(wires, part, precision)[cut_of] for part in range(3)]
    candidates = Candidates(
        **{name: _spread(values, shape_of) for name, values in own.items()},
        **{name: values.astype(float)[cut_of] for name, values in cuts.items()},
        weight_wire=wire[0],
        gradient_wire=wire[1],
        network_wire=wire[2],
        error_feedback=constant(0.0, len(shape_of)),
        int8_dispatch=constant(0.0, len(shape_of)),
    )
    shared = Shared(_rows(shape_of, len(pair)), _rows(cut_of, len(triple)))
    has_experts = model.experts is not None
    return Space(candidates, triple[cut_of], wires[cut_of], precision, considered, shared, has_experts)


def _cut_by(workload: Workload, grids: list[Index]) -> Index:
    """A number for each shape: equal for shapes with the same ways to cut states."""
    model = workload.model
    found: Index = grids[0] * (model.num_layers + 1) + grids[2]
    if model.experts:
        # Communicators depend on the dispatch, and a stage's layers with experts may on its chunks.
        found = (found * (model.experts.num_experts + 1) + grids[6]) * 2 + grids[7]
        found = found * (MOST_VIRTUAL_STAGES + 1) + (grids[3] if uneven(model) else 0)
    return found


def _spread(values: Index, of: Index) -> Array:
    """Values of rows [rows] for each candidate [n]."""
    alike = len(values) > 0 and bool(np.all(values == values[0]))
    return constant(float(values[0]), len(of)) if alike else values.astype(float)[of]


def _rows(of: Index, count: int) -> Rows:
    one = np.zeros(count, dtype=np.intp)
    one[of] = np.arange(len(of))
    return Rows(one, of)


def _cuts(
    workload: Workload,
    nodes: int,
    global_batch_size: int,
    tensor: Index,
    pipeline: Index,
    expert: Index,
    wire_formats: int,
) -> tuple[dict[str, Index], Index, Index, Index]:
    """The legal ways to cut states for each pair of ``tensor`` and ``pipeline`` (and ``expert``), in order.

    Returns data-parallel ranks and degrees by name, triples, wire formats, and the index of the pair.
    """
    axes = (np.arange(len(tensor)), np.arange(len(TRIPLES)), np.arange(wire_formats))
    pair, triple, wires = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    one = np.ones_like(pair)
    sizes = (tensor[pair], 0 * one, pipeline[pair], one, one, expert[pair])
    cut = _cut(workload, nodes, global_batch_size, *sizes)
    data = legal.data_parallel(cut)
    machine = workload.machine
    degrees, differ = _degrees(
        triple, cut.tensor, data, (machine.devices_per_package, machine.devices_per_node)
    )
    keep = differ & legal.degrees_nest(replace(cut, **degrees))
    if workload.model.experts:
        keep &= legal.degrees_fit_experts(replace(cut, **degrees))
    # Quantised wires only make sense for what travels in each micro-batch: gradients that are cut.
    quantisable = np.array([levels[1] > 0 for levels in TRIPLES])
    keep &= quantisable[triple] | (wires == 0)
    # A separate network format only makes sense if gradients cross the network after the micro-batches.
    keep &= (wires < 2) | (degrees["gradients"] < data)
    found = {"data": data, **degrees}
    return {name: values[keep] for name, values in found.items()}, triple[keep], wires[keep], pair[keep]


def search(
    workload: Workload,
    nodes: int,
    global_batch_size: int,
    precision: Precision = "bfloat16",
    *,
    plain: bool = False,
) -> Ranking:
    """Estimate and rank all layouts of a space; by memory alone if the machine's rates are unknown."""
    found = space(workload, nodes, global_batch_size, precision, plain=plain)
    estimated = estimate(workload, found.candidates, found.shared)
    fitting = np.flatnonzero(estimated.fits > 0)
    speed = estimated.tokens_per_s[fitting] if estimated.time else np.zeros(len(fitting))
    # Among equally fast layouts, less memory wins.
    order = fitting[np.lexsort((estimated.memory.peak[fitting], -speed))]
    return Ranking(found, estimated, order)


def compare(estimated: Estimate, one: int, other: int) -> dict[str, float]:
    """How much more time per token ``one`` spends than ``other``, by part, as a share of ``other``'s step."""
    assert estimated.time
    workload = (
        estimated.candidates.grad_accum_steps
        * estimated.workload.tokens(estimated.candidates)
        / (estimated.candidates.tensor * estimated.candidates.pipeline)
    )
    total = float(estimated.time.total[other] / workload[other])
    parts = {f.name: getattr(estimated.time, f.name) for f in fields(estimated.time)}
    return {
        name: float(part[one] / workload[one] - part[other] / workload[other]) / total
        for name, part in parts.items()
    }


def _divisors(number: int, largest: int | None = None) -> list[int]:
    """Divisors of ``number``, up to ``largest``."""
    return [divisor for divisor in range(1, min(number, largest or number) + 1) if number % divisor == 0]


_UNSET = (
    *("nodes", "seq_len", "global_batch_size", "tensor", "sequence_parallel"),
    *("pipeline", "virtual_stages", "micro_batch_size"),
)


def _tensor_sizes(workload: Workload) -> list[int]:
    cut = legal.Cut.of(workload.model, workload.machine.devices_per_node, **dict.fromkeys(_UNSET, 1))
    return [getattr(cut, name) for name in legal.TENSOR_SIZES]


def _cut(workload: Workload, nodes: int, global_batch_size: int, *grids: Index) -> legal.Cut:
    tensor, sequence_parallel, pipeline, virtual_stages, micro_batch_size, expert = grids
    return legal.Cut.of(
        workload.model,
        workload.machine.devices_per_node,
        nodes=nodes,
        seq_len=workload.seq_len,
        global_batch_size=global_batch_size,
        tensor=tensor,
        sequence_parallel=sequence_parallel,
        pipeline=pipeline,
        virtual_stages=virtual_stages,
        micro_batch_size=micro_batch_size,
        expert=expert,
    )


def _degrees(
    triple: Index,
    tensor: Index,
    data: Index,
    spans: tuple[int, int],
) -> tuple[dict[str, Index], npt.NDArray[np.bool_]]:
    """Data-parallel ranks of each degree (0: uneven), and whether each level differs from smaller ones."""
    numbers, differ = [np.ones_like(data)], [np.ones(len(data), dtype=bool)]
    for span in spans:
        numbers.append(legal.ranks_sharing(span, tensor, data))
    numbers.append(data)
    for place in range(1, len(numbers)):
        differ.append(numbers[place] > np.maximum.reduce(numbers[:place]))
    levels, found = np.array(TRIPLES), {}
    distinct = np.ones(len(data), dtype=bool)
    for position, kind in enumerate(("weights", "gradients", "optimizer")):
        found[kind] = np.choose(levels[triple, position], numbers)
        distinct &= np.choose(levels[triple, position], differ)
    with_secondary = triple == SECONDARY
    found["secondary"] = np.where(with_secondary, numbers[2], found["weights"])
    return found, distinct & (~with_secondary | (numbers[2] < data))


def _wire_bytes(wires: Index, part: int, precision: Precision) -> Array:
    """Bytes per value of weights, gradients or network (0, 1, 2)."""
    choices = [precision, *(quantised[part] or precision for quantised in QUANTISED)]
    return np.array([wire_bytes(wire, BLOCK) for wire in choices])[wires]
