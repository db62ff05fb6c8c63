"""The sharding degrees of a run, resolved from levels to numbers of ranks on the real placement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from frontrunner.configs import legal
from frontrunner.configs.errors import SpecError, Violation
from frontrunner.configs.schema import RunSpec
from frontrunner.configs.sharding import Degree

#: Keys that decide the number of data-parallel ranks.
_SHAPE = (
    "layout.tensor",
    "layout.pipeline",
    "nodes",
    "machine.packages_per_node",
    "machine.devices_per_package",
)


def degrees_of(spec: RunSpec) -> dict[str, int]:
    """Data-parallel ranks of ``weights``, ``gradients``, ``optimizer`` and ``secondary``.

    Raises SpecError with every violation: tensor x pipeline does not divide the world, data-parallel ranks
    are uneven on a level, or degrees do not nest or do not fit the expert ranks.
    """
    machine, layout = spec.machine, spec.layout
    cut = cut_of(spec)
    world = spec.nodes * machine.devices_per_node
    model_ranks = layout.tensor * layout.pipeline
    if not legal.model_ranks_divide_world(cut):
        raise SpecError(
            [
                Violation(
                    "layout.tensor",
                    layout.tensor,
                    f"tensor {layout.tensor} x pipeline {layout.pipeline} = {model_ranks} must divide "
                    f"the {world} devices of {spec.nodes} nodes x {machine.devices_per_node}",
                    "choose tensor and pipeline whose product divides the number of devices",
                )
            ]
        )
    data = legal.data_parallel(cut)
    violations: list[Violation] = []
    degrees: dict[str, int] = {}
    for kind in ("weights", "gradients", "optimizer", "secondary"):
        value: Degree = getattr(layout.sharding, kind) or layout.sharding.weights
        if kind == "secondary" and layout.sharding.preset == "zeropp":
            value = layout.sharding.secondary or "node"
        if kind == "secondary" and violations and value == layout.sharding.weights:
            continue  # the same degree would be reported twice
        try:
            degrees[kind] = _resolve(value, spec, data)
        except ValueError as error:
            fix = "set layout.sharding to zero3"
            violation = Violation(f"layout.sharding.{kind}", value, str(error), fix)
            violations.append(violation.at(dict.fromkeys(_SHAPE, str(error))))
    if not violations and not legal.degrees_nest(replace(cut, **degrees)):
        violations = _nesting_violations(degrees, layout.sharding, data)
    fits = legal.expert_ranks_divide_experts(cut) & legal.expert_ranks_divide_data(cut)
    # Expert ranks that do not fit have a message of their own.
    if not violations and fits and not legal.degrees_fit_experts(replace(cut, **degrees)):
        violations = _expert_violations(degrees, layout.sharding, layout.expert)
    if violations:
        raise SpecError(violations)
    return degrees


def cut_of(spec: RunSpec) -> legal.Cut:
    """What decides whether a run's layout is legal, except for the sharding degrees."""
    layout = spec.layout
    return legal.Cut.of(
        spec.model,
        spec.machine.devices_per_node,
        nodes=spec.nodes,
        seq_len=spec.training.seq_len,
        global_batch_size=spec.training.global_batch_size,
        tensor=layout.tensor,
        sequence_parallel=int(layout.sequence_parallel),
        pipeline=layout.pipeline,
        virtual_stages=layout.virtual_stages,
        micro_batch_size=layout.micro_batch_size,
        expert=layout.expert,
    )


def _resolve(degree: Degree, spec: RunSpec, data: int) -> int:
    """The number of data-parallel ranks that a level resolves to. Raises ValueError if it is uneven."""
    if isinstance(degree, int):
        return degree
    if degree == "all":
        return data
    machine, tensor = spec.machine, spec.layout.tensor
    span = machine.devices_per_package if degree == "package" else machine.devices_per_node
    ranks = int(legal.ranks_sharing(span, tensor, data))
    if not ranks:
        counts = " or ".join(str(count) for count in _held(span, tensor, data, spec.layout.pipeline))
        raise ValueError(
            f"data-parallel ranks are uneven: with tensor {tensor} and {data} of them per stage, "
            f"a {degree} of {span} devices holds {counts}"
        )
    return ranks


def _held(span: int, tensor: int, data: int, pipeline: int) -> list[int]:
    """The different numbers of data-parallel ranks of one stage that share a span."""
    shared = Counter((p, tensor * (d + data * p) // span) for p in range(pipeline) for d in range(data))
    return sorted(set(shared.values()))


def _nesting_violations(degrees: dict[str, int], sharding: object, data: int) -> list[Violation]:
    chain = [("weights", degrees["weights"]), ("gradients", degrees["gradients"])]
    chain += [("optimizer", degrees["optimizer"]), ("data-parallel ranks", data)]
    pairs = [*zip(chain, chain[1:], strict=False), (("secondary", degrees["secondary"]), chain[0])]
    violations = []
    for (inner, small), (outer, large) in pairs:
        if large % small:
            constraint = (
                f"{inner} {small} must divide {outer} {large} "
                "(secondary | weights | gradients | optimizer | data-parallel ranks)"
            )
            near = sorted(d for d in range(1, min(large, small) + 1) if large % d == 0)[-3:]
            *first, last = map(str, near)
            fix = f"use {', '.join(first)} or {last}" if first else f"use {last}"
            others = _SHAPE if outer == "data-parallel ranks" else (f"layout.sharding.{outer}",)
            violation = Violation(f"layout.sharding.{inner}", getattr(sharding, inner), constraint, fix)
            violations.append(violation.at(dict.fromkeys(others, constraint)))
    return violations


def _expert_violations(degrees: dict[str, int], sharding: object, expert: int) -> list[Violation]:
    violations = []
    for kind, degree in degrees.items():
        if degree % expert and expert % degree:
            constraint = (
                f"resolves to {degree} ranks, which must divide expert {expert} or be a multiple of it"
            )
            fix = f"use {expert}, or set layout.expert to {degree}"
            violation = Violation(f"layout.sharding.{kind}", getattr(sharding, kind), constraint, fix)
            violations.append(violation.at(dict.fromkeys(("layout.expert", *_SHAPE), constraint)))
    return violations
